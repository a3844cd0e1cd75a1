"""What shows a run while it goes on and when it ends: progress, a line an experience, results, tables and figures.

They are callbacks of a :class:`lightning.Trainer` that fits a :class:`bayesdual.Learner`.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from bayesdual import measures
from bayesdual.files import remove_left_over
from bayesdual.inspection.board import StreamBoard, shown_learner
from bayesdual.inspection.notebook import NotebookBar, matrix_html, show
from bayesdual.inspection.opening import in_bytes, opening
from bayesdual.inspection.page import capital
from bayesdual.inspection.predictions import KeptPredictions, bytes_kept
from bayesdual.inspection.runs import MAPS
from bayesdual.inspection.standing import Standing, leave, save_map, save_pictures
from bayesdual.inspection.tables import accuracy_tables, cell, summary
from bayesdual.inspection.verdict import classes_lost, lost_since, verdict
from bayesdual.learner import Learner
from bayesdual.memory import MemoryMap
from bayesdual.models import WritesFiles
from bayesdual.posterior import UNMARKED
from bayesdual.prediction import sentence_of_drift


class StreamProgress(ProgressBar):
    """One bar for the whole stream: which experience of how many, which epoch of it, and how long it will take.

    In a terminal, and in a notebook; elsewhere only what is printed through it appears.
    """

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(file=sys.stdout, highlight=False)
        self._shows = self.console.is_terminal or self.console.is_jupyter
        self._bar = NotebookBar() if self.console.is_jupyter else Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=self.console, transient=True, refresh_per_second=4,
        )  # fmt: skip
        self._bar.disable = not self._shows
        self._task = TaskID(0)

    def disable(self) -> None:
        self._bar.disable = True

    def enable(self) -> None:
        self._bar.disable = not self._shows

    def print(self, *args: Any, **kwargs: Any) -> None:
        self.console.print(*args, soft_wrap=True, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = shown_learner(pl_module).stream
        self._task = self._bar.add_task("", total=stream.epochs_done + stream.epochs_to_go)
        self._bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = shown_learner(pl_module).stream
        where = f"experience {stream.experience + 1}/{stream.n_experiences}, epoch {stream.epoch + 1}/{stream.epochs}"
        self._bar.update(self._task, description=where, completed=stream.epochs_done)
        self._bar.advance(self._task, stream.batch / (stream.batch + trainer.num_training_batches))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        batches = shown_learner(pl_module).stream.batch + trainer.num_training_batches  # of the whole epoch
        self._bar.advance(self._task, 1 / batches)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._bar.stop()


class RunReport(Callback):
    """A line after each experience; at the end of ``fit`` a table, ``results.json``, memory, posterior and figures.

    A network that has files of its own to write (``bayesdual.models.WritesFiles``) writes them there, too.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.console = Console(file=sys.stdout, highlight=False)
        self._saved: MemoryMap | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:  # the memory holds what was learned only now
            self._save_map(shown_learner(pl_module))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes the memory map before the checkpoint that it belongs to: a run killed after that draws it no more."""
        if trainer.is_global_zero:
            self._save_map(shown_learner(pl_module))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Tells of a drift, unless new classes are what the experience is there for."""
        if batch_idx or not trainer.is_global_zero:
            return
        learner = shown_learner(pl_module)
        stream, told = learner.stream, learner.history.drift
        if stream.epoch or not told:
            return
        classes = stream.describe()["classes"]
        new = set(classes[stream.experience]).difference(*classes[: stream.experience])
        if told[-1]["experience"] == stream.experience + 1 and told[-1]["drifts"] and not new:
            self._say(trainer, f"note: {sentence_of_drift(told[-1])}")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            remove_left_over(self.directory)

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            learner = shown_learner(pl_module)
            more = {}
            if any(isinstance(c, KeptPredictions) for c in trainer.callbacks):
                more["predictions"] = f"kept after each experience, {in_bytes(bytes_kept(learner))} in all"
            self._say(trainer, opening(trainer, learner, self.directory, more))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner = shown_learner(pl_module)
        stream, matrix, score = learner.stream, learner.history.accuracy, learner.history.score
        if not (stream.last_epoch_of_experience and trainer.is_global_zero):
            return
        seen = cell(measures.average_seen_accuracy(matrix), score)
        on_it = "" if math.isnan(own := matrix[-1][stream.experience]) else f"on it {cell(own, score)}, "
        where = "on the common test" if stream.evaluates_in_common(stream.evaluate_on) else f"{on_it}on all so far"
        which = f"experience {stream.experience + 1}/{stream.n_experiences}"
        self._say(trainer, f"{which} learned: {score.name} {where} {seen}{_lost(matrix, score)}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        learner = shown_learner(pl_module)
        if learner.history.accuracy:
            self._report(trainer, learner)
        stream = learner.stream
        if not stream.finished:
            how = "the same command goes on" if stream.n_learned_before else "go on with --ckpt_path last"
            self.console.print(f"stopped early, in experience {stream.experience + 1} of {stream.n_experiences}: {how}")

    def _say(self, trainer: Trainer, text: str) -> None:
        bar = trainer.progress_bar_callback
        bar.print(text) if bar else self.console.print(text, soft_wrap=True)

    def _save_map(self, learner: Learner) -> None:
        if learner.algorithm.memory_map is not self._saved:
            self._saved = learner.algorithm.memory_map
            save_map(self.directory, Standing.of(learner))

    def _report(self, trainer: Any, learner: Learner) -> None:
        self._save_map(learner)
        drawn = self.directory / MAPS / f"experience_{len(learner.history.accuracy)}.safetensors"
        if learner.algorithm.memory_map is None and drawn.is_file():  # killed between the last checkpoint and here
            learner.algorithm.memory_map = MemoryMap.load(drawn)
        posterior = learner.algorithm.posterior or learner.posterior()
        results = leave(self.directory, Standing.of(learner), posterior)
        if posterior is not None and not posterior.knows_data:
            self.console.print(f"note: {UNMARKED}")
        if isinstance(learner.network, WritesFiles):
            learner.network.save_files(self.directory)
        matrix, score = learner.history.accuracy, learner.history.score
        self.console.print(f"\n{capital(score.name)} on each experience (columns) after learning each (rows):")
        if self.console.is_jupyter:
            show(matrix_html(matrix, score))
        else:
            self.console.print(*accuracy_tables(matrix, score))
        lost_most = classes_lost(learner.history.accuracy_of_classes, list(learner.classes) or None)
        self.console.print(verdict(matrix, score, lost_most), summary(results), sep="\n", soft_wrap=True)
        board = next((c for c in trainer.callbacks if isinstance(c, StreamBoard)), StreamBoard())
        save_pictures(self.directory, board.pictures(learner))


def _lost(matrix: measures.Matrix, score: measures.Score) -> str:
    """A line on what was forgotten since the experience before, if anything was."""
    gone = lost_since(matrix, score)
    if not gone:
        return ""
    most = max(gone, key=gone.__getitem__)
    more = f", less on {len(gone) - 1} more" if len(gone) > 1 else ""
    return f"\n    lost since: {cell(gone[most], score)} on experience {most + 1}{more}"
