"""What ``fit --help`` shows: the settings of bayesdual, and of Lightning's trainer the few that most need."""

from __future__ import annotations

from argparse import Action
from collections.abc import Iterable
from typing import Any

from jsonargparse import DefaultHelpFormatter

ALL = "--help=all"
OF_TRAINER = tuple(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "precision", "callbacks"))
CHECKPOINT = "A checkpoint file, or last: the newest of --run_dir or of the latest run of this configuration."
MORE = f"""\
--model.algorithm.help, and --model.network.help CLASS, show the settings of a class, which are given as
--model.algorithm.init_args.KEY VALUE. `python -m bayesdual list` names the classes of bayesdual. {ALL} shows all
settings of the trainer, and all classes that are known."""


class BriefHelp(DefaultHelpFormatter):
    """Leaves out most settings of the trainer, and the lists of known classes."""

    def add_usage(self, usage: str | None, actions: Iterable[Action], *args: Any, **kwargs: Any) -> None:
        command = self._prog.split()[-1]
        usage = f"python -m bayesdual {command} --config FILE [--config FILE ...] [--KEY VALUE ...]"
        super().add_usage(usage, [], *args, **kwargs)

    def start_section(self, heading: str | None) -> None:
        of_trainer = heading is not None and heading.startswith("Customize every aspect of training")
        super().start_section(f"Lightning's trainer ({ALL} shows all of its settings)" if of_trainer else heading)

    def add_argument(self, action: Action) -> None:
        of_trainer = action.dest.startswith("trainer")
        if action.dest in OF_TRAINER or not (of_trainer or action.dest == "weights_only"):
            super().add_argument(action)

    def format_help(self) -> str:
        return f"{super().format_help()}\n{MORE}\n"

    def _get_help_string(self, action: Action) -> str:
        if action.dest == "ckpt_path":
            return CHECKPOINT
        text, known, _ = super()._get_help_string(action).partition(", known subclasses: ")
        return f"{text})" if known else text
