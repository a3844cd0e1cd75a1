"""One run of ours from a resolved configuration, learned without a trace on disk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser
from lightning import Trainer, seed_everything

from bayesdual.learner import Learner, MergeExperts, StreamDataModule

NOTHING_WRITTEN = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Objects(NamedTuple):
    """What a resolved configuration stands for."""

    model: Learner
    data: StreamDataModule
    trainer: dict[str, Any]


def objects_of(config: Mapping[str, Any]) -> Objects:
    """The objects that a resolved configuration stands for: a learner, its stream, and the settings of a trainer.

    All that they draw at random follows from ``seed_everything``.
    """
    seed_everything(config["seed_everything"], verbose=False)
    parser = _parser()
    made = parser.instantiate(parser.parse_object({key: config[key] for key in Objects._fields}))
    return Objects(made.model, made.data, dict(made.trainer))


def learn(config: Mapping[str, Any]) -> dict[str, Any]:
    """Learns the stream of a resolved configuration by the Lightning host.

    Args:
        config: What :func:`bayesdual.configuration.resolve` returned.

    Returns:
        The results of :class:`bayesdual.learner.History`, ``exemplars``, the examples in memory at the end, and
        ``memory_bytes``, what is carried beyond the network and its optimizer, by part.

    Raises:
        FloatingPointError: The loss is no longer finite.
    """
    model, data, trainer = objects_of(config)
    Trainer(**{**trainer, **NOTHING_WRITTEN}).fit(model, datamodule=data)
    return {
        **model.history.results(),
        "exemplars": len(model.algorithm.memory),
        "memory_bytes": model.algorithm.memory_bytes() | _of_experts(trainer),
    }


@lru_cache(maxsize=1)
def _parser() -> ArgumentParser:
    """Takes values that are resolved already; it is no part of ``bayesdual.configuration``, which resolves them."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Learner, "model", fail_untyped=False)
    parser.add_class_arguments(StreamDataModule, "data", fail_untyped=False)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, fail_untyped=False)
    return parser


def _of_experts(trainer: Mapping[str, Any]) -> dict[str, int]:
    """What is carried where experts are merged over the stream."""
    merging = [callback for callback in trainer.get("callbacks") or () if isinstance(callback, MergeExperts)]
    return {name: size for callback in merging for name, size in callback.memory_bytes().items()}
