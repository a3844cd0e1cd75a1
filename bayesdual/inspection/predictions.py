"""Raw predictions of a run, kept after each experience, and measures that are worked out of them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from bayesdual.files import refusing_other_content
from bayesdual.inspection.board import shown_learner
from bayesdual.learner import Learner
from bayesdual.measures import Matrix
from bayesdual.tensor_files import read_tensors, write_tensors

FOLDER = "predictions"  # in a run directory
KIND = "predictions"
FORMAT = "bayesdual.predictions/1"

Measure = Callable[[Tensor, Tensor], float | Tensor]
"""A number for predictions (N, C) and targets (N,)."""


@dataclass(frozen=True)
class Predictions:
    """What was said of every example evaluated after an experience, in the order of the data.

    Attributes:
        experience: Which each is of, from 1, shape (N,), int16; data of another kind come after the last.
        y: Labels, shape (N,), int32; or numbers, float32.
        predicted: Probabilities of all classes, shape (N, C); or of numbers the mean, shape (N, 1). float32.
        n_experiences: Of the stream.
    """

    experience: Tensor
    y: Tensor
    predicted: Tensor
    n_experiences: int

    def of(self, k: int) -> tuple[Tensor, Tensor]:
        """Predictions and targets of an experience, counted from 1."""
        mine = self.experience == k
        return self.predicted[mine], self.y[mine].long() if not self.y.is_floating_point() else self.y[mine]

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Reads a file of ``predictions/``; nothing in it is executed.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It is something else, or damaged.
        """
        tensors, header = read_tensors(path, KIND)
        with refusing_other_content(path, KIND):
            if header["format"] != FORMAT:
                raise ValueError(f"{path} is of format {header['format']}, which another version of bayesdual reads.")
            return cls(tensors["experience"], tensors["y"], tensors["predicted"], int(header["n_experiences"]))


def read_predictions(run: str | Path) -> dict[int, Predictions]:
    """All predictions that a run has kept, by the number of experiences learned before.

    Raises:
        FileNotFoundError: It has kept none.
        ValueError: A file is damaged.
    """
    folder = Path(run) / FOLDER
    paths = {int(path.stem.rpartition("_")[2]): path for path in folder.glob("after_[0-9]*.safetensors")}
    if not paths:
        raise FileNotFoundError(f"{folder} holds no predictions: learn with fit --predictions, which keeps them.")
    return {k: Predictions.load(paths[k]) for k in sorted(paths)}


def matrix_of(kept: dict[int, Predictions], measure: Measure) -> Matrix:
    """Any measure of each experience (columns) after learning each (rows), as the accuracy matrix has accuracies.

    Args:
        kept: What :func:`read_predictions` gave.
        measure: Of predictions (N, C) and targets (N,); its mean over a row is no measure of all examples together.

    Returns:
        A row for each file; NaN where an experience was not evaluated.
    """
    n = max(of_one.n_experiences for of_one in kept.values())
    return [[_measured(measure, *of_one.of(j + 1)) for j in range(n)] for of_one in kept.values()]


def _measured(measure: Measure, predicted: Tensor, y: Tensor) -> float:
    return float(measure(predicted, y)) if len(y) else nan


class KeptPredictions(Callback):
    """Keeps what is predicted of every example in each evaluation after an experience.

    ``predictions/after_K.safetensors`` in the run directory, read by :func:`read_predictions`.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._parts: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        answered: Any = outputs
        predicted = answered["probabilities"] if "probabilities" in answered else answered["mean"]
        of = shown_learner(pl_module).stream.evaluated[dataloader_idx]
        self._parts.setdefault(of, []).append((predicted.float().cpu(), answered["y"].cpu()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        mine = {k: tuple(map(torch.cat, zip(*parts, strict=True))) for k, parts in self._parts.items()}
        self._parts = {}
        everybody: list[Any] = [mine] * trainer.world_size
        if trainer.world_size > 1:
            dist.all_gather_object(everybody, mine)
        if not trainer.sanity_checking and trainer.is_global_zero:
            stream = shown_learner(pl_module).stream
            self._write(everybody, stream.experience + 1, stream.n_experiences)

    def _write(self, of_ranks: list[Any], after: int, n_experiences: int) -> None:
        known = sorted(set().union(*of_ranks))
        joined = [[_in_turn([of[k][i] for of in of_ranks if k in of]) for k in known] for i in (0, 1)]
        predicted, y = map(torch.cat, joined)
        sizes = torch.tensor([len(of_one) for of_one in joined[1]])
        tensors = {
            "experience": (torch.tensor(known) + 1).short().repeat_interleave(sizes),
            "y": y.float() if y.is_floating_point() else y.int(),
            "predicted": predicted,
        }
        (self.directory / FOLDER).mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "n_experiences": str(n_experiences)}
        write_tensors(self.directory / FOLDER / f"after_{after}.safetensors", tensors, header)


def bytes_kept(learner: Learner) -> int:
    """How much the predictions of a whole stream come to, but for headers."""
    stream = learner.stream
    examples = sum(len(data.y) for data in stream.evaluation_data(stream.evaluate_on))
    row = 2 + 4 + 4 * learner.likelihood.outputs(stream.n_classes)
    return examples * row * len(stream.stream("train"))


def _in_turn(parts: list[Tensor]) -> Tensor:
    """Joins what ranks have of data of which each got every so many-th row."""
    joined = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        joined[rank :: len(parts)] = part
    return joined
