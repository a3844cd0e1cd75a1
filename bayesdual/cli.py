"""The command line: LightningCLI over a stream, with run directories, shipped configurations and one-sentence errors."""

from __future__ import annotations

import csv
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from rich import print as rich_print

from bayesdual.data import StreamDataModule
from bayesdual.files import write_whole
from bayesdual.inspection import RunReport, StreamCheckpoint, StreamProgress, evaluation_table
from bayesdual.learner import Learner

RUNS = Path("runs")
CHECKPOINTS = "checkpoints"
BENCHMARK = "--data.benchmark"


class CommandLineError(Exception):
    """What is wrong with the command line or a configuration, in one sentence."""


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        raise CommandLineError(message) from ex


class Cli(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` of a :class:`Learner` on a :class:`StreamDataModule`."""

    def __init__(self, args: list[str]) -> None:
        self._run_name = name_of_run(args)
        super().__init__(
            Learner,
            StreamDataModule,
            parser_class=Parser,
            parser_kwargs={"parser_mode": "omegaconf", "prog": "python -m bayesdual"},
            trainer_defaults={"max_epochs": -1, "enable_model_summary": False, "log_every_n_steps": 10},
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str | None,
            help="Where the run writes to; by default a new folder of runs/, named after the first configuration.",
        )

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        wanted = config.get("ckpt_path")
        if self.subcommand == "fit":
            self.run_dir = self._run_dir_to_write(config.run_dir, resume=wanted == "last")
        elif wanted is None:
            raise CommandLineError(
                f"{self.subcommand} needs a trained network: give --ckpt_path FILE, or --ckpt_path last for the "
                "latest run of this configuration."
            )
        else:
            self.run_dir = self._run_dir_to_read(config.run_dir, wanted)
        if wanted is not None:
            path = self.run_dir / CHECKPOINTS / "last.ckpt" if wanted == "last" else Path(wanted)
            check_checkpoint(path)
            config.ckpt_path = str(path)
            config.weights_only = True

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        if self.subcommand == "fit":
            trainer = self.config_init[self.subcommand]["trainer"]
            if trainer.get("logger") is None:
                kwargs["logger"] = TensorBoardLogger(self.run_dir, name="", version="")
            self.trainer_defaults["callbacks"] = [
                StreamCheckpoint(self.run_dir / CHECKPOINTS),
                RunReport(self.run_dir),
                StreamProgress(),
            ]
        else:
            self.save_config_callback = None
            kwargs["logger"] = False
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        print(f"run directory: {self.run_dir}")

    def after_validate(self) -> None:
        rich_print(evaluation_table(self.model.latest_evaluation, "accuracy on the validation stream"))

    def after_test(self) -> None:
        rich_print(evaluation_table(self.model.latest_evaluation, "accuracy on the test stream"))

    def predict(self, **kwargs: Any) -> None:
        """Writes one row per example of the test stream: experience, label, prediction and its probability."""
        outputs = self.trainer.predict(**kwargs)
        path = self.run_dir / "predictions.csv"
        write_whole(path, lambda temporary: write_predictions(temporary, outputs))
        print(f"predictions: {path}")

    def _run_dir_to_write(self, given: str | None, resume: bool) -> Path:
        if given is None:
            return latest_run(self._run_name) if resume else new_run(self._run_name)
        path = Path(given)
        if not resume and (path / CHECKPOINTS).exists():
            raise CommandLineError(
                f"--run_dir {path} already holds a run: go on with it by --ckpt_path last, or give another folder."
            )
        return make_directory(path)

    def _run_dir_to_read(self, given: str | None, checkpoint: str) -> Path:
        if given is not None:
            return Path(given)
        if checkpoint == "last":
            return latest_run(self._run_name)
        folder = Path(checkpoint).parent
        return folder.parent if folder.name == CHECKPOINTS else folder


def run(argv: list[str]) -> None:
    """Runs a command line; raises :class:`CommandLineError` or whatever went wrong."""
    Cli(join_benchmark(find_configs(argv)))


# ----------------------------------------------------------------------- the command line before it is parsed


def find_configs(argv: list[str]) -> list[str]:
    """Replaces the paths after ``--config`` that are not there by the configuration that ships with the package.

    ``--config configs/split_digits.yaml`` thus works from any folder.
    """
    result = list(argv)
    for place, path in config_places(argv):
        if not Path(path).is_file():
            shipped = Path(str(resources.files("bayesdual.configs"))) / path.removeprefix("configs/")
            if not shipped.is_file():
                raise CommandLineError(
                    f"--config {path}: there is no such file, nor one of that name among the configurations that "
                    f"ship in {shipped.parent}."
                )
            result[place] = result[place].replace(path, str(shipped))
    return result


def config_places(argv: list[str]) -> list[tuple[int, str]]:
    """The configuration files of a command line, each with the place of its argument."""
    places = []
    for i, word in enumerate(argv):
        if word in ("--config", "-c") and i + 1 < len(argv):
            places.append((i + 1, argv[i + 1]))
        elif word.startswith("--config="):
            places.append((i, word.removeprefix("--config=")))
    return places


def name_of_run(argv: list[str]) -> str:
    """The stem of the first configuration, after which a run is named."""
    places = config_places(argv)
    return Path(places[0][1]).stem if places else "run"


def join_benchmark(argv: list[str]) -> list[str]:
    """Joins ``--data.benchmark NAME``, its ``.init_args.KEY`` flags and what the configurations say into one flag.

    The parser takes such flags for classes only, and a benchmark is any callable. A new name drops the arguments of
    the old one.
    """
    rest, flags = [], []
    words = iter(argv)
    for word in words:
        if word.startswith(BENCHMARK):
            key, equals, value = word.partition("=")
            flags.append((key.removeprefix(BENCHMARK), value if equals else next(words, "")))
        else:
            rest.append(word)
    if not flags and len(config_places(argv)) < 2:
        return argv
    spec: dict[str, Any] = {}
    for _, path in config_places(argv):
        with open(path) as file:
            data = (yaml.safe_load(file) or {}).get("data") or {}
        merge_benchmark(spec, data.get("benchmark"))
    for key, value in flags:
        if key in ("", ".class_path"):
            merge_benchmark(spec, yaml.safe_load(value))
        elif key.startswith(".init_args."):
            merge_benchmark(spec, {"init_args": {key.removeprefix(".init_args."): yaml.safe_load(value)}})
        else:
            raise CommandLineError(f"{BENCHMARK}{key} is not a key: use {BENCHMARK} NAME and .init_args.KEY VALUE.")
    if not spec:
        return rest
    if "class_path" not in spec:
        raise CommandLineError(f"{BENCHMARK}.init_args are given, but no {BENCHMARK} NAME.")
    return [*rest, f"{BENCHMARK}={json.dumps(spec)}"]


def merge_benchmark(spec: dict[str, Any], more: str | dict[str, Any] | None) -> None:
    """Lays ``more`` (a name, or class_path and init_args) over ``spec``, in place."""
    if more is None:
        return
    more = {"class_path": more} if isinstance(more, str) else more
    name = more.get("class_path")
    if name is not None and name != spec.get("class_path"):
        spec.clear()
        spec["class_path"] = name
    spec["init_args"] = {**spec.get("init_args", {}), **(more.get("init_args") or {})}


# ----------------------------------------------------------------------- run directories


def runs_named(name: str) -> list[Path]:
    """The run directories that were named after a configuration, the oldest first."""
    found = [p for p in RUNS.glob(f"{name}-*") if re.fullmatch(rf"{re.escape(name)}-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def new_run(name: str) -> Path:
    """Makes the next run directory of a name."""
    existing = runs_named(name)
    number = int(existing[-1].name.rpartition("-")[2]) + 1 if existing else 1
    return make_directory(RUNS / f"{name}-{number}")


def latest_run(name: str) -> Path:
    """The newest run directory of a name that has a checkpoint.

    Raises:
        CommandLineError: There is none.
    """
    for path in reversed(runs_named(name)):
        if (path / CHECKPOINTS / "last.ckpt").exists():
            return path
    raise CommandLineError(
        f"--ckpt_path last: no run of this configuration with a checkpoint in {RUNS}/{name}-*; give --run_dir."
    )


def make_directory(path: Path) -> Path:
    """Makes a directory that can be written to.

    Raises:
        CommandLineError: It cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CommandLineError(f"--run_dir {path} cannot be written to ({error.strerror}): give another.") from None
    return path


def check_checkpoint(path: Path) -> None:
    """Makes sure a checkpoint can be read.

    Raises:
        CommandLineError: It is not there, or not a checkpoint.
    """
    if not path.is_file():
        raise CommandLineError(f"--ckpt_path {path}: there is no such file.")
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged archive makes of it
        first = str(error).strip().partition("\n")[0]
        raise CommandLineError(f"--ckpt_path {path} is not a checkpoint, or is damaged ({first}).") from None


def write_predictions(path: Path, outputs: list[Any]) -> None:
    """Writes what ``predict`` returned, a list of batches for each experience, as CSV."""
    by_experience = outputs if isinstance(outputs[0], list) else [outputs]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["experience", "label", "prediction", "probability"])
        for i, batches in enumerate(by_experience):
            for batch in batches:
                probability, prediction = batch["probabilities"].max(dim=1)
                rows = zip(batch["y"].tolist(), prediction.tolist(), probability.tolist(), strict=True)
                writer.writerows([i + 1, y, k, f"{p:.6f}"] for y, k, p in rows)
