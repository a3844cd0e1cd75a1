"""``python -m bayesdual learn RUN``: one more experience, or several, for a run that has learned its stream.

It is ``fit`` with the settings of the run, but for its data, from its last checkpoint. ``config.yaml`` stays what the
run began with; what is learned later is ``config-2.yaml``, ``config-3.yaml`` and so on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace

from bayesdual.cli.fit import Cli, settings_of
from bayesdual.cli.run_directories import CHECKPOINTS, FREE, changed_settings, newest_whole
from bayesdual.cli.words import WordParser
from bayesdual.configuration import (
    CommandLineError,
    find_configs,
    read_config,
    read_settings,
    with_current_names,
)
from bayesdual.learner import StreamDataModule

BENCHMARK = ("data.benchmark", "data.benchmark.class_path")
MAY_CHANGE = ("data.benchmark", "data.epochs", "data.batch_size", "trainer", "run_dir", *FREE)
OF_DATA = ("data.benchmark", "data.epochs", "data.batch_size")


def main(argv: list[str]) -> None:
    """Learns what comes next.

    Args:
        argv: The command line, without the word ``learn``.

    Raises:
        CommandLineError: It says something that cannot be.
    """
    given = parser().parse_args(argv)
    run, settings = Path(given.run), find_configs(with_current_names(given.settings))
    if not (run / "config.yaml").is_file():
        raise CommandLineError(f"{run} is no run directory: it has no config.yaml; give one of runs/.")
    if "--ckpt_path" in " ".join(settings):
        raise CommandLineError("learn goes on from the last checkpoint of the run: leave --ckpt_path out.")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "config.yaml")
        base.write_text(yaml.safe_dump(base_settings(run, settings), sort_keys=False))
        LearnCli(run, ["fit", "--config", str(base), *settings])


def parser() -> WordParser:
    """That of the command."""
    made = WordParser(
        "learn",
        description="Learn what comes next, with all that a run has learned and its settings.",
        epilog="The data are given as for fit: --config FILE, --data.benchmark NAME, --data.benchmark.init_args.KEY "
        "VALUE; --data.epochs, --data.batch_size and --trainer.KEY may be others than they were. --run_dir NEW leaves "
        "RUN as it is. The same command goes on where it was stopped.",
    )
    made.add_argument("run", metavar="RUN", help="a run directory")
    made.add_argument("settings", nargs=argparse.REMAINDER, metavar="--KEY VALUE", help="what to learn next")
    return made


def base_settings(run: Path, settings: list[str]) -> dict[str, Any]:
    """The settings of a run as far as they hold for what comes next.

    Raises:
        CommandLineError: It is not said what comes next.
    """
    base = read_config(str(run / "config.yaml"))
    keys = [setting.key for setting in read_settings(settings)]
    if not any(key.startswith("data.benchmark") for key in keys):
        raise CommandLineError(
            "what is to be learned next is not said: give --config FILE with data.benchmark, or --data.benchmark NAME."
        )
    if any(key in BENCHMARK for key in keys):
        del base["data"]["benchmark"]
    base["trainer"]["max_epochs"] = -1
    base.pop("run_dir", None)  # which is where it was called from, then
    return base


class LearnCli(Cli):
    """Goes on with a run.

    Args:
        run: Its directory.
        argv: A command line of ``fit``, the first configuration of which are its settings.
    """

    def __init__(self, run: Path, argv: list[str]) -> None:
        self._run = run
        super().__init__(argv)

    def _choose_run_dir(self, config: Namespace) -> Path:
        target = self._run if config.run_dir is None else Path(config.run_dir)
        source = self._run
        if (target / CHECKPOINTS).is_dir():
            if (target / "config.yaml").read_bytes() != (self._run / "config.yaml").read_bytes():
                raise CommandLineError(f"--run_dir {target} already holds another run: give another folder.")
            source = target
        config.ckpt_path = str(newest_whole(source / CHECKPOINTS))
        return target

    def _check_settings(self, config: Namespace) -> None:
        """Refuses settings that stay as they are in a run."""
        given = settings_of(self._parser(self._command), config)
        for key, (old, new) in changed_settings(read_config(str(self._run / "config.yaml")), given).items():
            if not key.startswith(MAY_CHANGE):
                raise CommandLineError(
                    f"{key} is {old} in {self._run}, and cannot become {new}: leave it out, the data alone are new."
                )

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        assert self._checkpoint is not None, "it was chosen with the run directory"
        saved = torch.load(self._checkpoint, map_location="cpu", weights_only=True, mmap=True)
        stream = self.datamodule.after().standing_at(saved[type(self.datamodule).__qualname__])
        number = stream.n_streams_before + 1
        self.save_config_kwargs["name"] = f"config-{number}.yaml"
        if self.run_dir != self._run:
            self._begin_elsewhere(stream)
        if stream.epochs_done:
            self._check_data(self.run_dir / f"config-{number}.yaml")
        if stream.finished:
            print(f"{self.run_dir} has learned these data already: nothing is learned again")
        self.datamodule.after(*(self._earlier(before) for before in range(1, number)))
        return super().instantiate_trainer(**kwargs)

    def _begin_elsewhere(self, stream: StreamDataModule) -> None:
        if (self.run_dir / CHECKPOINTS).is_dir():
            if not stream.epochs_done:
                raise CommandLineError(
                    f"--run_dir {self.run_dir} has learned something else already: give another folder, or go on with "
                    f"learn {self.run_dir}."
                )
            return
        for path in self._run.glob("config*.yaml"):
            shutil.copyfile(path, self.run_dir / path.name)

    def _check_data(self, path: Path) -> None:
        """Sees that what is gone on with is what was begun."""
        settings = settings_of(self._parser(self._command), self.config[self._command])
        for key, (old, new) in changed_settings(read_config(str(path)), settings).items():
            if key.startswith(OF_DATA):
                raise CommandLineError(f"{key} was {old} in what goes on ({path}), and is {new} now: give what it was.")

    def _earlier(self, number: int) -> StreamDataModule | None:
        """A stream that was learned before, to evaluate it again; None, and a sentence, where its data are gone."""
        path = self.run_dir / ("config.yaml" if number == 1 else f"config-{number}.yaml")
        try:
            made = _parser().instantiate(_parser().parse_object({"data": read_config(str(path))["data"]}))
            made.data.evaluation_data(self.datamodule.evaluate_on)
        except (Exception, SystemExit) as error:  # whatever a benchmark makes of data that are gone
            print(f"bayesdual: {path}: its data cannot be had, and are not evaluated ({error}).", file=sys.stderr)
            return None
        return made.data


def _parser() -> ArgumentParser:
    """Takes the data of a configuration that is resolved."""
    made = ArgumentParser(exit_on_error=False)
    made.add_class_arguments(StreamDataModule, "data", fail_untyped=False)
    return made
