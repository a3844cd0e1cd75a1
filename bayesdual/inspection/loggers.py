"""What loggers other than TensorBoard's get: scalars and settings any, figures those that take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from bayesdual.inspection.figures import Picture

Taker = Callable[[str, Picture, int], object]
"""Takes a tag, a picture and a step."""


def others(trainer: Trainer) -> list[Logger]:
    """The loggers that are not TensorBoard's: of the first process."""
    return [x for x in trainer.loggers if not isinstance(x, TensorBoardLogger)] if trainer.is_global_zero else []


def taker_of(logger: Any) -> Taker | None:
    """How a logger takes figures; None if it takes none.

    By ``log_image(key, images, step)``, as W&B's has it, or by its MLflow client's ``log_image``.
    """
    if callable(getattr(logger, "log_image", None)):
        return lambda tag, pixels, step: logger.log_image(key=tag, images=[pixels], step=step)
    if hasattr(logger, "run_id") and callable(getattr(logger.experiment, "log_image", None)):
        return lambda tag, pixels, step: logger.experiment.log_image(logger.run_id, pixels, key=tag, step=step)
    return None


def left_out(logger: Logger) -> str:
    """What a logger does not get, in a sentence."""
    figures = taker_of(logger) is not None
    given, not_given = ("scalars, settings and figures", "") if figures else ("scalars and settings", "figures, ")
    return (
        f"{type(logger).__name__} gets {given}; it does not get {not_given}histograms of the posterior and the "
        "projector, which TensorBoardLogger does."
    )
