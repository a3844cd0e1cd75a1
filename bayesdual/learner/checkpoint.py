"""Checkpoints of a stream: after every epoch, and after every experience."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from bayesdual.files import write_whole
from bayesdual.learner.datamodule import StreamDataModule


class StreamCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` after every epoch, and ``experience_K.ckpt`` after the last epoch of each experience.

    Args:
        directory: Where to.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            for left in self.directory.glob(".*.ckpt"):  # by a run that was killed while it wrote
                left.unlink()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream: StreamDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
        last = self.directory / "last.ckpt"
        if trainer.is_global_zero:  # Lightning's own way may copy from another file system, which a kill cuts short
            self.directory.mkdir(parents=True, exist_ok=True)
            write_whole(last, trainer.save_checkpoint)
        else:  # every process has its part in a checkpoint; the first one writes it
            trainer.save_checkpoint(last)
        if stream.epoch == 0 and trainer.is_global_zero:  # the stream has gone on to the next experience
            copy = self.directory / f"experience_{stream.experience}.ckpt"
            write_whole(copy, lambda path: shutil.copyfile(last, path))
