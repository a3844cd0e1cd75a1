"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI over a stream, with run directories."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ActionYesNo, DefaultHelpFormatter, Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf.errors import OmegaConfBaseException
from rich import print as rich_print

from bayesdual.cli.help import ALL, BriefHelp
from bayesdual.cli.predictions import by_experience, evaluation_of, write_numbers, write_predictions
from bayesdual.cli.run_directories import (
    CHECKPOINTS,
    RUNS,
    check_checkpoint,
    check_resumed,
    latest_run,
    make_directory,
    new_run,
    newest_whole,
)
from bayesdual.configuration import (
    RUN_COMMANDS,
    TRAINER_DEFAULTS,
    CommandLineError,
    Parser,
    anchor_interpolations,
    check_places,
    check_run_dir,
    config_places,
    guarded,
    inline_configs,
    join_benchmark,
    name_of_run,
    parsing_complaint,
    read_settings,
    refuse_other_files,
    run_of_config,
    sole_use,
)
from bayesdual.files import write_json, write_whole
from bayesdual.inspection import KeptPredictions, RunReport, StreamBoard, StreamProgress, evaluation_table
from bayesdual.learner import Learner, StreamCheckpoint, StreamDataModule
from bayesdual.measures import Evaluation, NumberEvaluation

RANK_ZERO = "BAYESDUAL_RUN_DIR"  # environment variable through which the processes of a run share its directory


class SaveConfig(SaveConfigCallback):
    """Writes the resolved configuration to the run directory."""

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, directory: Path, name: str = "config.yaml"
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self._path = directory / name

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Waits until the run is known to begin."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        text = yaml.safe_dump(settings_of(self.parser, self.config), sort_keys=False)
        write_whole(self._path, lambda path: path.write_text(text))


def batch_of_processes(stream: StreamDataModule, ranks: int) -> str:
    """Says how several processes share out a batch."""
    total = stream.batch_size * (1 if stream.batch_size_of == "all" else ranks)
    return f"{ranks} processes: {total} new examples in a batch, {total // ranks} on each"


def refuse_unused_checkpoints(config: Namespace) -> None:
    """Refuses settings of checkpoints where none are written.

    Raises:
        CommandLineError: There are some.
    """
    given = [key for key, value in vars(config.checkpoint).items() if value is not None]
    if given and config.trainer.enable_checkpointing is False:
        raise CommandLineError(
            f"checkpoint.{given[0]} says when checkpoints are written, and trainer.enable_checkpointing is false, so "
            "that none are: leave one of them out."
        )


def settings_of(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    """The settings of a run, every default spelled out, as plain values."""
    settings = yaml.safe_load(parser.dump(config, skip_unset=False))
    settings.pop("ckpt_path", None)  # how a run was resumed is not part of it, nor what it is used for later
    return settings


class Cli(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` of a :class:`Learner` on a :class:`StreamDataModule`.

    Args:
        argv: The command line, all configuration files of which are there.

    Raises:
        CommandLineError: It says something that cannot be.
    """

    def __init__(self, argv: list[str]) -> None:
        for name in ("lightning.pytorch", "lightning.fabric"):  # importing them sets them to INFO
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # which says what it ends
        self._argv = argv
        self._checkpoint: Path | None = None
        self._held = ExitStack()  # the run directory, while it is written to
        self._unused_run: Path | None = None  # made for this command, to be taken away if nothing is learned
        words = ["--help" if word == ALL else word for word in argv]
        self._held.enter_context(guarded())
        try:
            super().__init__(
                Learner,
                StreamDataModule,
                SaveConfig,
                parser_class=Parser,
                parser_kwargs={
                    "parser_mode": "omegaconf+",
                    "prog": "python -m bayesdual",
                    "description": "Learn a stream of tasks, one experience after the other, without forgetting.",
                    "formatter_class": DefaultHelpFormatter if ALL in argv else BriefHelp,
                    **{command: {"description": text} for command, text in RUN_COMMANDS.items()},
                },
                trainer_defaults=dict(TRAINER_DEFAULTS),
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                args=anchor_interpolations(inline_configs(join_benchmark(words))),
            )
        except BaseException:  # Ctrl-C and the exit that Lightning makes of it as well
            if self._unused_run is not None and not self._has_begun():
                shutil.rmtree(self._unused_run, ignore_errors=True)
                with suppress(OSError):
                    RUNS.rmdir()  # if it is empty
            raise
        finally:
            self._held.close()

    # -- what LightningCLI calls, in this order

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str | None,
            help="Where the run writes to; by default one of runs/, named after configurations, memory and seed.",
        )
        parser.add_argument(
            "--predictions",
            action=ActionYesNo,
            default=False,
            help="Keep all that is predicted of every example after each experience, in predictions/ of the run.",
        )
        parser.add_lightning_class_args(StreamBoard, "board")
        parser.add_class_arguments(StreamCheckpoint, "checkpoint", skip={"directory"}, instantiate=False)
        parser.add_argument(
            "--threads",
            type=int | None,
            help="Threads of PyTorch on the CPU; by default its own choice. For small networks, 1 is fastest.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        refuse_other_files(read_settings(self._argv))
        try:
            super().parse_arguments(parser, args)
        except (CommandLineError, OmegaConfBaseException) as error:
            command = next((word for word in self._argv if word in RUN_COMMANDS), None)
            accepted = [a.dest for a in self._parser(command)._actions]
            raise CommandLineError(parsing_complaint(str(error), read_settings(self._argv), accepted)) from error

    @property
    def _command(self) -> str:
        assert self.subcommand is not None, "a command line without a command was refused"
        return self.subcommand

    def _parse_ckpt_path(self) -> None:
        """Reads no hyperparameters out of a checkpoint: there are none, and the file has not been checked yet."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self._command]
        if config.threads is not None:
            if config.threads < 1:
                raise ValueError(f"threads is {config.threads}: give at least 1, or leave it out.")
            torch.set_num_threads(config.threads)
        if config.ckpt_path == "auto":
            config.ckpt_path = self._last_if_there_is_one(config)
        settings = read_settings(self._argv)
        check_run_dir(settings)
        rank = rank_zero_only.rank  # type: ignore[attr-defined]
        self.run_dir = self._run_dir_of_rank_zero(config) if rank else self._choose_run_dir(config)
        check_places(config, settings, self.run_dir)
        os.environ[RANK_ZERO] = str(self.run_dir.absolute())
        if config.ckpt_path is not None:
            last = config.ckpt_path == "last"
            self._checkpoint = newest_whole(self.run_dir / CHECKPOINTS) if last else Path(config.ckpt_path)
            check_checkpoint(self._checkpoint)
            if self._command == "fit" and rank == 0:
                self._check_settings(config)
        if self._command == "fit":
            refuse_unused_checkpoints(config)
        if self._command == "fit" and make_directory(self.run_dir):
            self._unused_run = self.run_dir
        if self._command == "fit" and rank == 0:
            refusal = (
                f"--run_dir {self.run_dir} is in use by another run: wait until that has ended, or give another folder."
            )
            self._held.enter_context(sole_use(self.run_dir, refusal))

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        given = self.config_init[self._command]["trainer"]
        if self._command == "fit":
            self.save_config_kwargs["directory"] = self.run_dir
            if given.get("logger") is None:
                kwargs["logger"] = TensorBoardLogger(self.run_dir, name="", version="")
            if given.get("default_root_dir") is None:
                kwargs["default_root_dir"] = self.run_dir
            callbacks: list[Callback] = [RunReport(self.run_dir)]
            if self.config_init[self._command].predictions:
                callbacks.append(KeptPredictions(self.run_dir))
            if given.get("enable_checkpointing") is not False:
                within = self.config_init[self._command]["checkpoint"]
                callbacks.append(StreamCheckpoint(self.run_dir / CHECKPOINTS, **within))
            if given.get("enable_progress_bar") is not False:
                callbacks.append(StreamProgress())
            self.trainer_defaults["callbacks"] = callbacks
        else:
            self.save_config_callback = None
            kwargs |= {"logger": False, "enable_progress_bar": False}
            if self._command == "predict":
                kwargs |= {"devices": 1, "num_nodes": 1}  # one process writes all rows
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        if self._checkpoint is not None:
            self.config_init[self._command].ckpt_path = str(self._checkpoint)
            self.config_init[self._command].weights_only = True

    @rank_zero_only
    def before_fit(self) -> None:
        if (ranks := self.trainer.world_size) > 1:
            print(batch_of_processes(self.datamodule, ranks))

    @rank_zero_only
    def after_fit(self) -> None:
        print(f"run directory: {self.run_dir}")

    @rank_zero_only
    def after_validate(self) -> None:
        self._show(self.model.latest_evaluation, "validation")

    @rank_zero_only
    def after_test(self) -> None:
        self._show(self.model.latest_evaluation, "test")

    def predict(self, **kwargs: Any) -> None:
        """Writes one row per example of the test stream, and what they come to."""
        outputs = by_experience(self.trainer.predict(**kwargs) or [])
        likelihood = self.model.likelihood
        self._show(evaluation_of(outputs, likelihood), "test")
        path = self.run_dir / "predictions.csv"
        write = partial(write_predictions, classes=self.model.classes) if likelihood.has_classes else write_numbers
        write_whole(path, lambda temporary: write(temporary, outputs))
        print(f"predictions: {path}")

    def _show(self, evaluation: Evaluation | NumberEvaluation, stream: str) -> None:
        """Prints an evaluation, and leaves all of it beside the run's results."""
        rich_print(evaluation_table(evaluation, stream))
        write_json(self.run_dir / f"{self._command}.json", evaluation)

    # -- run directories

    def _check_settings(self, config: Namespace) -> None:
        """Refuses settings with which a run cannot go on."""
        assert self._checkpoint is not None, "there is one to go on from"
        check_resumed(self._checkpoint, settings_of(self._parser(self._command), config))

    def _choose_run_dir(self, config: Namespace) -> Path:
        if config.ckpt_path is None and self._command != "fit":
            raise CommandLineError(
                f"{self._command} needs a trained network: give --ckpt_path FILE, or --ckpt_path last for the "
                "latest run of this configuration."
            )
        given = None if config.run_dir is None else Path(config.run_dir)
        if config.ckpt_path == "last":
            return given or self._latest_run()
        if self._command != "fit":
            folder = Path(str(config.ckpt_path)).parent
            return given or (folder.parent if folder.name == CHECKPOINTS else folder)
        if given is not None and (given / CHECKPOINTS).exists():
            raise CommandLineError(
                f"--run_dir {given} already holds a run: go on with it by --ckpt_path last, or give another folder."
            )
        return given or new_run(name_of_run(self._argv))

    def _last_if_there_is_one(self, config: Namespace) -> str | None:
        """What ``auto`` means: one command that begins a run, and that goes on with it when it is given again."""
        if self._command != "fit" or config.run_dir is None:
            raise CommandLineError(
                "--ckpt_path auto is for fit, which begins in --run_dir DIR or goes on with what is there: give one, "
                "or --ckpt_path last."
            )
        checkpoints = (Path(config.run_dir) / CHECKPOINTS).glob("*.ckpt")
        return "last" if any(not path.name.startswith(".") for path in checkpoints) else None

    def _run_dir_of_rank_zero(self, config: Namespace) -> Path:
        path = os.environ.get(RANK_ZERO) or config.run_dir
        if path is None:
            raise CommandLineError("processes that something else than Lightning starts share a --run_dir: give one.")
        return Path(path)

    def _latest_run(self) -> Path:
        places = config_places(self._argv)
        return (run_of_config(Path(places[0][1])) if places else None) or latest_run(name_of_run(self._argv))

    def _has_begun(self) -> bool:
        trainer = getattr(self, "trainer", None)
        return trainer is not None and trainer.global_step > 0
