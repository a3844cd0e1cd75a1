"""How configurations are parsed: by ``fit``, which makes objects of one at once, and resolved to plain values first."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, NoReturn

import yaml
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from bayesdual.configuration.arguments import (
    CommandLineError,
    Setting,
    flatten,
    inline_configs,
    join_benchmark,
    read_config,
    to_flag,
)
from bayesdual.configuration.messages import parsing_complaint
from bayesdual.configuration.trust import check_places, guarded, refuse_other_files
from bayesdual.learner import Learner, StreamDataModule

TRAINER_DEFAULTS = {"max_epochs": -1, "enable_model_summary": False, "log_every_n_steps": 10}
NOT_WRITABLE_AS_YAML = "Unable to serialize instance"


class Parser(LightningArgumentParser):
    """Raises what is wrong instead of printing the usage, and takes no abbreviated flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Has no value be the name of another file with settings, which nobody would see checked."""
        return super().add_class_arguments(*args, **{**kwargs, "sub_configs": False})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise CommandLineError(message) from ex

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Leaves out defaults that YAML cannot say, such as the transforms of Avalanche's benchmarks."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=rf"\s*{NOT_WRITABLE_AS_YAML}")
            text = super().dump(*args, **kwargs)
        if NOT_WRITABLE_AS_YAML not in text:
            return text
        return yaml.safe_dump(only_writable(yaml.safe_load(text)), sort_keys=False)


def only_writable(content: Any) -> Any:
    """Nested mappings without the values that YAML could not say; interpolations, which name none yet, stay."""
    if isinstance(content, str):
        return content.removeprefix(f"{NOT_WRITABLE_AS_YAML} ")
    if not isinstance(content, dict):
        return content
    return {k: only_writable(v) for k, v in content.items() if _writable(v)}


def _writable(value: Any) -> bool:
    return not str(value).startswith(NOT_WRITABLE_AS_YAML) or "${" in value


@lru_cache(maxsize=1)
def run_parser() -> Parser:
    """Takes what the configurations of ``fit`` say; it makes objects of it, too."""
    parser = Parser(parser_mode="omegaconf+")
    parser.add_argument("--config", action="config")
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
    refuse_other_files(given)
    parser = run_parser()
    try:
        with guarded():
            config = parser.parse_args(inline_configs(join_benchmark(argv)))
    except (CommandLineError, OmegaConfBaseException) as error:
        raise CommandLineError(parsing_complaint(str(error), given, [a.dest for a in parser._actions])) from error
    content = yaml.safe_load(parser.dump(config, skip_unset=False))
    check_places(content, given, None)
    content.pop("config", None)
    return content
