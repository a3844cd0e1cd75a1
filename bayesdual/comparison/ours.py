"""One run of ours from a resolved configuration, learned without a trace on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import Trainer, seed_everything

from bayesdual.configuration import run_parser

NOTHING_WRITTEN = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def made(config: Mapping[str, Any]) -> Any:
    """The objects that a resolved configuration stands for: ``model``, ``data``, and the settings of ``trainer``.

    All that they draw at random follows from ``seed_everything``.
    """
    seed_everything(config["seed_everything"], verbose=False)
    parser = run_parser()
    return parser.instantiate(parser.parse_object(dict(config)))


def learn(config: Mapping[str, Any]) -> dict[str, Any]:
    """Learns the stream of a resolved configuration by the Lightning host.

    Args:
        config: What :func:`resolve` returned.

    Returns:
        The results of :class:`bayesdual.history.History`, and ``exemplars``, the examples in memory at the end.

    Raises:
        FloatingPointError: The loss is no longer finite.
    """
    objects = made(config)
    Trainer(**{**objects.trainer, **NOTHING_WRITTEN}).fit(objects.model, datamodule=objects.data)
    return {**objects.model.history.results(), "exemplars": len(objects.model.algorithm.memory)}
