"""What people look at: progress, tables in the terminal, figures in TensorBoard and as PNG."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from bayesdual import metrics
from bayesdual.files import write_json, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesdual.learner import Learner
    from bayesdual.memory import Exemplars

VERSIONS_OF = ("bayesdual", "torch", "lightning", "avalanche-lib")
MEMORY_FIGURE_COLUMNS = 10
COLUMNS_ABREAST = 10  # of the accuracy matrix, in 80 characters


class StreamProgress(ProgressBar):
    """One bar for the whole stream: which experience of how many, which epoch of it, and how long it will take.

    Where there is no terminal, only what is printed through it appears.
    """

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(file=sys.stdout, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=self.console, transient=True, refresh_per_second=4, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._task: TaskID | None = None

    def disable(self) -> None:
        self._bar.disable = True

    def enable(self) -> None:
        self._bar.disable = not self.console.is_terminal

    def print(self, *args: Any, **kwargs: Any) -> None:
        self.console.print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.datamodule.n_experiences * trainer.datamodule.epochs
        self._task = self._bar.add_task("", total=total)
        self._bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = trainer.datamodule
        where = f"experience {stream.experience + 1}/{stream.n_experiences}, epoch {stream.epoch + 1}/{stream.epochs}"
        self._bar.update(self._task, description=where, completed=trainer.current_epoch)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._bar.advance(self._task, 1 / trainer.num_training_batches)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._bar.stop()


class StreamCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` after every epoch, and ``experience_K.ckpt`` after the last epoch of each experience.

    Args:
        directory: Where to.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = trainer.datamodule
        last = self.directory / "last.ckpt"
        trainer.save_checkpoint(last)
        if stream.epoch == 0 and trainer.is_global_zero:  # the stream has gone on to the next experience
            copy = self.directory / f"experience_{stream.experience}.ckpt"
            write_whole(copy, lambda path: shutil.copyfile(last, path))


class RunReport(Callback):
    """A line after each experience; at the end of ``fit`` a table, ``results.json``, the memory and figures.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.console = Console(file=sys.stdout, highlight=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        stream = trainer.datamodule
        if not (stream.last_epoch_of_experience and trainer.is_global_zero):
            return
        row = pl_module.history.accuracy[-1]
        seen = metrics.average_seen_accuracy(pl_module.history.accuracy)
        line = (
            f"experience {stream.experience + 1}/{stream.n_experiences} learned: accuracy on it "
            f"{row[stream.experience]:.3f}, on all so far {seen:.3f}"
        )
        (trainer.progress_bar_callback or self.console).print(line)

    def on_fit_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        if pl_module.history.accuracy:
            self._report(trainer, pl_module)
        stream = trainer.datamodule
        if not stream.finished:
            self.console.print(
                f"stopped early, in experience {stream.experience + 1} of {stream.n_experiences}: "
                "go on with --ckpt_path last"
            )

    def _report(self, trainer: Trainer, pl_module: Learner) -> None:
        results = run_results(trainer, pl_module)
        write_json(self.directory / "results.json", results)
        memory = pl_module.algorithm.memory
        if len(memory):
            memory.save(self.directory / "memory.safetensors")
        matrix = results["accuracy_matrix"]
        self.console.print("\nAccuracy on each experience (columns) after learning each (rows):")
        self.console.print(*accuracy_tables(matrix), summary(results))
        figures = {"accuracy_matrix": accuracy_figure(matrix), "accuracy_over_time": progress_figure(matrix)}
        if len(memory) and is_images(memory.exemplars.x):
            figures["memory"] = memory_figure(memory.exemplars)
        for name, figure in figures.items():
            write_whole(self.directory / f"{name}.png", lambda path, f=figure: f.savefig(path, dpi=120))
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(name, figure, trainer.global_step)


def run_results(trainer: Trainer, learner: Learner) -> dict[str, Any]:
    """All that ``results.json`` holds."""
    return {
        **learner.history.results(),
        "experiences_learned": trainer.datamodule.experience,
        "memory_size": len(learner.algorithm.memory),
        "memory_budget": learner.algorithm.memory.budget,
        "evaluated_on": trainer.datamodule.evaluate_on,
        "seed": torch.initial_seed(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
    }


def summary(results: dict[str, Any]) -> str:
    """The numbers that matter, in lines of at most 80 characters."""
    transfer = results["forward_transfer"]
    numbers = {
        "average accuracy": f"{results['average_accuracy']:.4f}",
        "forgetting": f"{results['forgetting']:.4f}",
        "backward transfer": f"{results['backward_transfer']:+.4f}",
        "forward transfer": "-" if transfer is None else f"{transfer:+.4f}",
        "NLL": f"{results['nll']:.4f}",
        "ECE": f"{results['ece']:.4f}",
    }
    cells = [f"{name:<18}{value:>8}" for name, value in numbers.items()]
    lines = [f"{left}    {right}" for left, right in zip(cells[::2], cells[1::2], strict=True)]
    seconds = {name: f"{results[f'seconds_{name}']:.1f}" for name in ("total", "training", "evaluation", "memory")}
    return "\n".join(
        [
            *lines,
            f"memory: {results['memory_size']} of {results['memory_budget']} exemplars",
            f"seconds: {seconds['total']} (training {seconds['training']}, evaluation {seconds['evaluation']}, "
            f"memory {seconds['memory']})",
        ]
    )


def accuracy_tables(matrix: metrics.Matrix) -> Iterator[Table]:
    """The accuracy matrix for the terminal, ten experiences abreast: bold where one had just been learned."""
    n = len(matrix[0])
    for first in range(0, n, COLUMNS_ABREAST):
        block = range(first, min(first + COLUMNS_ABREAST, n))
        table = Table(box=box.SIMPLE_HEAD, padding=0)
        table.add_column("after")
        for j in block:
            table.add_column(str(j + 1), justify="right", min_width=5)
        if n - 1 in block:
            table.add_column("seen", justify="right", min_width=5)
        for i, row in enumerate(matrix):
            cells = [f"{row[j]:.3f}" if j <= i else "-" for j in block]
            if i in block:
                cells[i - first] = f"[bold]{cells[i - first]}[/bold]"
            if n - 1 in block:
                cells.append(f"{metrics.average_seen_accuracy(matrix[: i + 1]):.3f}")
            table.add_row(str(i + 1), *cells)
        yield table


def evaluation_table(evaluation: dict[str, Any], title: str) -> Table:
    """Accuracy of each experience, and their mean, NLL and ECE of all, for the terminal."""
    accuracy = evaluation["accuracy"]
    table = Table("experience", title, box=box.SIMPLE_HEAD, padding=0)
    table.columns[1].justify = "right"
    for j, a in enumerate(accuracy):
        table.add_row(str(j + 1), f"{a:.4f}", end_section=j == len(accuracy) - 1)
    rest = {"average": sum(accuracy) / len(accuracy), "NLL": evaluation["nll"], "ECE": evaluation["ece"]}
    for name, value in rest.items():
        table.add_row(name, f"{value:.4f}")
    return table


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # only drawn at the end; importing it takes a while

    return Figure((width, height), layout="constrained")


def accuracy_figure(matrix: metrics.Matrix) -> Figure:
    """The accuracy matrix as a heat map."""
    n = len(matrix[0])
    figure = _figure(1.6 + 0.6 * n, 1.2 + 0.55 * len(matrix))
    axes = figure.subplots()
    axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for i, row in enumerate(matrix):
        for j, a in enumerate(row):
            axes.text(j, i, f"{a:.2f}", ha="center", va="center", color="white" if a < 0.6 else "black", fontsize=8)
    axes.set_xticks(range(n), [str(j + 1) for j in range(n)])
    axes.set_yticks(range(len(matrix)), [str(i + 1) for i in range(len(matrix))])
    axes.set_xlabel("accuracy on experience")
    axes.set_ylabel("after experience")
    return figure


def progress_figure(matrix: metrics.Matrix) -> Figure:
    """How the accuracy of each experience goes on once it is learned, and the mean over those seen."""
    figure = _figure(6, 3.6)
    axes = figure.subplots()
    steps = range(1, len(matrix) + 1)
    for j in range(len(matrix)):
        axes.plot(steps[j:], [row[j] for row in matrix[j:]], marker="o", alpha=0.6, label=f"experience {j + 1}")
    means = [metrics.average_seen_accuracy(matrix[: i + 1]) for i in range(len(matrix))]
    axes.plot(steps, means, color="black", linewidth=2.5, label="mean of those seen")
    axes.set(xlabel="after experience", ylabel="accuracy", ylim=(0, 1.02), xticks=list(steps))
    axes.legend(fontsize=7, ncols=1 + len(matrix) // 8, loc="lower left")
    return figure


def is_images(x: Tensor) -> bool:
    """Whether inputs (M, ...) look like images, of 1 or 3 channels."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def memory_figure(exemplars: Exemplars) -> Figure:
    """The exemplars of each class in a row, the first ones kept first; above each, its score."""
    classes: Sequence[int] = exemplars.y.unique().tolist()
    height, width = exemplars.x.shape[2:]
    top, right = height // 3, width // 8 + 1  # room for the score, and between images
    canvas = torch.ones(len(classes), top + height, MEMORY_FIGURE_COLUMNS, width + right, 3)
    figure = _figure(0.7 * MEMORY_FIGURE_COLUMNS, 0.75 * len(classes))
    axes = figure.subplots()
    for row, c in enumerate(classes):
        mine = exemplars[exemplars.y == c]
        for column in range(min(len(mine), MEMORY_FIGURE_COLUMNS)):
            image = mine.x[column].cpu().float().permute(1, 2, 0)
            low, high = image.min(), image.max()
            canvas[row, top:, column, :width] = (image - low) / (high - low).clamp_min(1e-6)
            x, y = column * (width + right) + width / 2, row * (top + height) + top - 1
            axes.text(x, y, f"{mine.scores[column]:.2g}", fontsize=6, ha="center", va="bottom")
    axes.imshow(canvas.flatten(2, 3).flatten(0, 1).numpy())
    axes.set_yticks([row * (top + height) + top + height / 2 for row in range(len(classes))], [str(c) for c in classes])
    axes.set_ylabel("class")
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    return figure
