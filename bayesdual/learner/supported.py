"""Which features of Lightning work on a stream: those that are not known to are refused at the start, not tried."""

from __future__ import annotations

import sys
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import (
    BasePredictionWriter,
    Checkpoint,
    DeviceStatsMonitor,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    Timer,
)
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch._dynamo import OptimizedModule

CALLBACKS = (
    BasePredictionWriter,
    Checkpoint,
    DeviceStatsMonitor,
    LambdaCallback,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
)
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")  # inputs are made float32 in the network's forward pass
OURS = {  # settings of the trainer that a stream makes, and what they are where nobody has set them
    "check_val_every_n_epoch": (1, None, sys.maxsize),  # which it is between the ends of experiences
    "reload_dataloaders_every_n_epochs": (0, 1),
}
LIMITS = {"validate": "limit_val_batches", "test": "limit_test_batches", "predict": "limit_predict_batches"}
WHOLE = {  # settings of the trainer, and what they are where every epoch is learned and evaluated whole
    "limit_train_batches": (1.0, None),
    "limit_val_batches": (1.0, None, 0),  # or not evaluated at all
    "overfit_batches": (0, 0.0),
    "val_check_interval": (1.0, None),
}


def refuse_unsupported(trainer: Any, network: nn.Module) -> None:
    """Refuses what would learn something else than the stream, or could not go on from a checkpoint.

    Args:
        trainer: Lightning's.
        network: What is to be learned.

    Raises:
        ValueError: A feature is in use that is not known to work; the sentence names it.
    """
    if trainer.fast_dev_run or trainer.max_steps != -1 or any(isinstance(c, Timer) for c in trainer.callbacks):
        raise ValueError(
            "trainer.max_steps, max_time and fast_dev_run stop in the middle of an epoch, which a stream cannot go on "
            "from: give trainer.max_epochs, or fewer data.epochs."
        )
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision is {trainer.precision}, which is not known to work on a stream: give one of "
            f"{', '.join(PRECISIONS)}."
        )
    for name, free in OURS.items():
        if getattr(trainer, name) not in free:
            raise ValueError(
                f"trainer.{name} is {getattr(trainer, name)}, which has no effect on a stream: it is evaluated at the "
                "end of each experience, and read anew in each epoch; leave it out."
            )
    for name, whole in WHOLE.items():
        value = getattr(trainer, name)
        if value not in whole:
            raise ValueError(
                f"trainer.{name} is {value}: a stream is learned and evaluated in whole epochs; leave it out, or "
                "give a smaller benchmark."
            )
    for callback in trainer.callbacks:
        for kind in type(callback).__mro__:
            of_lightning = kind.__module__.startswith("lightning.pytorch.callbacks") and kind is not Callback
            if of_lightning and not issubclass(kind, CALLBACKS):
                raise ValueError(
                    f"{kind.__name__} of Lightning is not known to work on a stream: leave it out of trainer.callbacks."
                )
        steps, time = (getattr(callback, f"_{key}", None) for key in ("every_n_train_steps", "train_time_interval"))
        if isinstance(callback, ModelCheckpoint) and (steps or time):
            raise ValueError(
                "a ModelCheckpoint by every_n_train_steps or train_time_interval is also written after the last batch "
                "of an epoch, which a stream cannot go on from: give StreamCheckpoint every_n_steps or every_n_minutes "
                "(--checkpoint.every_n_steps, --checkpoint.every_n_minutes)."
            )
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            raise ValueError(
                f"a ModelCheckpoint monitors {callback.monitor!r}, but a stream is evaluated at the end of each "
                "experience, and its last checkpoint alone has learned all: leave monitor out."
            )
    if not isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy):
        raise ValueError(
            f"trainer.strategy is {type(trainer.strategy).__name__}, which is not known to work on a stream: give ddp, "
            "or leave it out."
        )
    refuse_compiled(trainer.lightning_module, network)


def refuse_partial_evaluation(trainer: Any, stage: str) -> None:
    """Refuses to evaluate a part of a stream only, whose measures would be taken for the stream's.

    Args:
        trainer: Lightning's.
        stage: ``validate``, ``test`` or ``predict``.

    Raises:
        ValueError: The trainer has a limit of its batches.
    """
    name = LIMITS[stage]
    if (value := getattr(trainer, name)) not in (1.0, None) or isinstance(value, int):
        raise ValueError(f"trainer.{name} is {value}: a stream is evaluated whole; leave it out.")


def refuse_compiled(learner: Any, network: nn.Module) -> None:
    """Refuses what ``torch.compile`` made, whose layers neither a prior nor the scores of examples can see.

    Raises:
        ValueError: Learner or network is compiled.
    """
    compiled = [m for m in network.modules() if isinstance(m, OptimizedModule) or m._compiled_call_impl is not None]
    if compiled or learner._compiler_ctx is not None or learner._compiled_call_impl is not None:
        raise ValueError(
            f"the {'network' if compiled else 'learner'} is compiled by torch.compile, behind which its layers are not "
            "seen by the prior, the posterior and the selection: give it as it is."
        )


def save_at_epoch_ends(trainer: Any) -> None:
    """Has Lightning's ModelCheckpoint wait for the end of the epoch, when what the evaluation said has been noted."""
    for callback in trainer.callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback._save_on_train_epoch_end = True
