"""Checkpoints of a stream: after every epoch and every experience, and within epochs as often as one likes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from bayesdual.files import remove_left_over, write_whole
from bayesdual.learner.datamodule import StreamDataModule
from bayesdual.learner.position import batches_done

LAST = "last.ckpt"


class StreamCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` after every epoch, and ``experience_K.ckpt`` after the last epoch of experience K.

    Within an epoch ``last.ckpt`` is written where steps or minutes say so, and after the batch in which the run was
    told to end (SIGTERM), but not while gradients are accumulated, nor after the last batch, which the end of the
    epoch follows.

    Args:
        directory: Where to.
        every_n_steps: Within epochs, also after every so many steps of the optimizer; None: not by steps.
        every_n_minutes: Within epochs, also once this time has gone by since the last one; None: not by time.
        keep: How many of the newest ``experience_K.ckpt`` stay, at least 1; None: all.

    Raises:
        ValueError: A number is not positive.
    """

    def __init__(
        self,
        directory: str | Path,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        keep: int | None = None,
    ) -> None:
        given = {"every_n_steps": every_n_steps, "every_n_minutes": every_n_minutes, "keep": keep}
        for name, value in given.items():
            if value is not None and value <= 0:
                raise ValueError(f"checkpoint.{name} is {value}: give more than 0, or leave it out.")
        self.directory = Path(directory)
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.keep = keep
        self._written_at, self._has_written = time.monotonic(), False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._written_at = time.monotonic()
        if trainer.is_global_zero:
            remove_left_over(self.directory)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        if batches_done(trainer, _stream(trainer)) is None:
            return
        due = trainer.received_sigterm or self._is_due(trainer.global_step)
        if trainer.strategy.reduce_boolean_decision(due, all=False):  # clocks differ, and a signal may reach only one
            self._write(trainer, LAST)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = _stream(trainer)
        if stream.epoch > 0:
            self._write(trainer, LAST)
            return
        # The stream has gone on to the next experience. Killed between the two, a run learns the epoch once more, and
        # leaves both; the other way about it would never leave the first.
        of_experience = self._write(trainer, f"experience_{stream.experience}.ckpt")
        if trainer.is_global_zero:
            write_whole(self.directory / LAST, lambda path: shutil.copyfile(of_experience, path))
            self._remove_older(stream.experience)

    def _remove_older(self, newest: int) -> None:
        if self.keep is None:
            return
        for path in self.directory.glob("experience_*.ckpt"):
            number = path.stem.removeprefix("experience_")
            if number.isdecimal() and int(number) <= newest - self.keep:
                path.unlink(missing_ok=True)

    def _is_due(self, step: int) -> bool:
        by_steps = self.every_n_steps is not None and step % self.every_n_steps == 0
        minutes = (time.monotonic() - self._written_at) / 60
        return by_steps or (self.every_n_minutes is not None and minutes >= self.every_n_minutes)

    def _write(self, trainer: Trainer, name: str) -> Path:
        checkpoint = self.directory / name
        if self._has_written and trainer.is_global_zero and not self.directory.is_dir():
            raise FileNotFoundError(
                f"{self.directory} has gone while the run was learning, and so have its checkpoints."
            )
        if trainer.is_global_zero:  # Lightning's own way may copy from another file system, which a kill cuts short
            self.directory.mkdir(parents=True, exist_ok=True)
            write_whole(checkpoint, trainer.save_checkpoint)
        else:  # every process has its part in a checkpoint; the first one writes it
            trainer.save_checkpoint(checkpoint)
        self._written_at, self._has_written = time.monotonic(), True
        return checkpoint


def _stream(trainer: Trainer) -> StreamDataModule:
    return trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
