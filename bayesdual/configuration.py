"""One run from its configuration: resolved to plain values, and learned from them without writing anything.

``fit`` does both at once, in a run directory; a comparison resolves many configurations first, and learns elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml
from jsonargparse import ActionConfigFile
from lightning import Trainer, seed_everything
from omegaconf.errors import OmegaConfBaseException

from bayesdual.cli import TRAINER_DEFAULTS, Parser
from bayesdual.complaints import parsing_complaint
from bayesdual.data import StreamDataModule
from bayesdual.learner import Learner
from bayesdual.settings import CommandLineError, Setting, flatten, join_benchmark, read_config, to_flag

NOTHING_WRITTEN = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@lru_cache(maxsize=1)
def run_parser() -> Parser:
    """Takes what the configurations of ``fit`` say; it makes objects of it, too."""
    parser = Parser(parser_mode="omegaconf+")
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_argument("--seed_everything", type=int, default=0)
    parser.add_argument("--threads", type=int | None)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(Learner, "model")
    parser.add_lightning_class_args(StreamDataModule, "data")
    parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})
    return parser


def resolve(*layers: str | Setting) -> dict[str, Any]:
    """What ``fit`` would make of configuration files and settings: every default spelled out, plain values.

    Args:
        layers: Configuration files that are there, and settings, whose ``file`` says where they stand; a later one
            overrides an earlier one.

    Raises:
        CommandLineError: Something in them cannot be; it says what, and where.
    """
    argv, given = [], []
    for layer in layers:
        if isinstance(layer, Setting):
            argv.append(to_flag(layer.key, layer.value))
            given.append(layer)
        else:
            argv += ["--config", layer]
            given += [Setting(key, value, layer) for key, value in flatten(read_config(layer))]
    parser = run_parser()
    try:
        config = parser.parse_args(join_benchmark(argv))
    except (CommandLineError, OmegaConfBaseException) as error:
        raise CommandLineError(parsing_complaint(str(error), given, [a.dest for a in parser._actions])) from error
    content = yaml.safe_load(parser.dump(config, skip_unset=False))
    content.pop("config", None)
    return content


def learn(config: Mapping[str, Any]) -> dict[str, Any]:
    """Learns the stream of a resolved configuration by the Lightning host.

    Args:
        config: What :func:`resolve` returned.

    Returns:
        The results of :class:`bayesdual.history.History`, and ``exemplars``, the examples in memory at the end.

    Raises:
        FloatingPointError: The loss is no longer finite.
    """
    seed_everything(config["seed_everything"], verbose=False)
    parser = run_parser()
    made = parser.instantiate(parser.parse_object(dict(config)))
    Trainer(**{**made.trainer, **NOTHING_WRITTEN}).fit(made.model, datamodule=made.data)
    return {**made.model.history.results(), "exemplars": len(made.model.algorithm.memory)}
