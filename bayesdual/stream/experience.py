"""What a stream of experiences looks like to a learner: labelled tensors, or a dataset behind a loader.

An Avalanche benchmark gives experiences with a ``dataset``. Small data is better held as tensors and batched by
indexing: an experience that can give its data that way has a method ``tensors() -> TensorData``, as all of
``bayesdual.scenarios`` do. Anything else is read through a ``DataLoader``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from bayesdual.stream.checks import Targets, class_numbers, labels_of_items, parts_of_items, stacked

Predict = Callable[[Tensor, Tensor], Tensor]
"""Inputs as the stream gives them (B, ...) and task labels (B,) to logits (B, C)."""
Batch = tuple[Tensor, Tensor, Tensor]
"""Inputs (B, ...), labels (B,) and task labels (B,)."""


class ExperienceData(Protocol):
    """The N examples of one experience, in a fixed order."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per-channel mean of the inputs, on the scale 0..1; empty when they are used as they are."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Per-channel standard deviation, on the scale 0..1; empty when the inputs are used as they are."""
        ...

    @property
    def y(self) -> Tensor:
        """Labels, shape (N,), int64; of targets that are numbers, float32."""
        ...

    @property
    def tasks(self) -> Tensor:
        """Task labels, shape (N,), int64."""
        ...

    @property
    def index(self) -> Tensor:
        """Position of each example in the source dataset, shape (N,), int64."""
        ...

    def inputs(self, rows: Tensor) -> Tensor:
        """Returns the inputs of some examples, shape (len(rows), ...), without augmentation."""
        ...


@dataclass(frozen=True)
class TensorData:
    """The examples of one experience, held as tensors.

    Attributes:
        x: Inputs, shape (N, ...), raw: uint8 images are normalised on the device, in the learner.
        y: Labels, shape (N,), int64; of targets that are numbers, float32.
        tasks: Task labels, shape (N,), int64 (all 0 in a stream without task labels).
        index: Position of each example in the source dataset, shape (N,), int64.
        mean: Per-channel mean of the inputs, on the scale 0..1; empty when ``x`` is used as it is.
        std: Per-channel standard deviation, on the scale 0..1; empty when ``x`` is used as it is.
        origin: What made ``x``, where it is features of a frozen backbone; empty: nothing did.
    """

    x: Tensor
    y: Tensor
    tasks: Tensor
    index: Tensor
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    origin: str = ""

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, rows: Tensor) -> Tensor:
        return self.x[rows]


class DatasetData:
    """The examples of one experience behind an Avalanche dataset; its transforms say what networks take.

    Labels are those of its items: a target transform, the dataset's own or of Avalanche's groups, counts. Inputs of
    several parts, a dict or a tuple of tensors, are handed on as one tensor each (see ``parts.py``).

    Args:
        dataset: The experience's dataset; its items are (input, label, task label).
        name: What to call it in an error.
        checked: Makes targets of what items give.

    Raises:
        ValueError: The dataset has no targets or no items by number, labels that are no classes, or inputs that are
            others when they are learned than when they are evaluated, but for their values.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __init__(self, dataset: Any, name: str, checked: Targets = class_numbers) -> None:
        if not hasattr(dataset, "targets"):
            raise ValueError(
                f"the dataset of {name} has no targets: make it with avalanche.benchmarks.utils."
                "as_classification_dataset, or give each experience a method tensors()."
            )
        self.name = name
        self.plain = dataset.eval() if hasattr(dataset, "eval") else dataset
        self.augmented = dataset.train() if hasattr(dataset, "train") else dataset
        views = [self.plain, self.augmented]
        try:
            self.y = labels_of_items(list(dataset.targets), views, name, checked)
        except NotImplementedError:  # PyTorch's, of an IterableDataset
            raise ValueError(
                f"the dataset of {name} has no items by number, which exemplars and the order of examples need: give "
                "it __len__ and __getitem__ in place of __iter__."
            ) from None
        self.parts = parts_of_items(views, name) if len(self.y) else None
        tasks = getattr(dataset, "targets_task_labels", None)
        self.tasks = (
            torch.zeros(len(self.y), dtype=torch.int64)
            if tasks is None
            else torch.as_tensor(list(tasks), dtype=torch.int64)
        )
        self.index = torch.arange(len(self.y))

    def __len__(self) -> int:
        return len(self.y)

    def inputs(self, rows: Tensor) -> Tensor:
        return stacked([self.plain[int(i)][0] for i in rows], self.name, self.parts)


def experience_data(experience: Any, checked: Targets = class_numbers) -> TensorData | DatasetData:
    """Returns the data of an Avalanche experience, as tensors if it can give them.

    Args:
        experience: The experience.
        checked: Makes targets of what is given: ``class_numbers``, or those of a likelihood.

    Raises:
        ValueError: The experience has no dataset, or one without targets, or labels that are no classes.
    """
    name = _name(experience)
    if hasattr(experience, "tensors"):
        data = experience.tensors()
        y = checked(data.y, name)
        return data if y is data.y else replace(data, y=y)
    if not hasattr(experience, "dataset"):
        raise ValueError(f"{name} has no dataset: give a benchmark for supervised learning.")
    return DatasetData(experience.dataset, name, checked)


def _name(experience: Any) -> str:
    """What to call an experience in an error."""
    number = getattr(experience, "current_experience", None)
    stream = getattr(getattr(experience, "origin_stream", None), "name", None)
    return (
        f"{'an experience' if number is None else f'experience {number + 1}'} of "
        f"{'' if stream is None else f'the stream {stream!r} of '}the benchmark"
    )


def task_classes(experiences: Any, n_classes: int) -> Tensor | None:
    """Which classes each task label can be, or None for a stream without task labels.

    Args:
        experiences: All experiences of the training stream.
        n_classes: Number of logits.

    Returns:
        Booleans, shape (largest task label + 1, n_classes).
    """
    labels: dict[int, set[int]] = {}
    for experience in experiences:
        for task in getattr(experience, "task_labels", [0]):
            labels.setdefault(int(task), set()).update(classes_of(experience))
    if len(labels) < 2:
        return None
    mask = torch.zeros(max(labels) + 1, n_classes, dtype=torch.bool)
    for task, classes in labels.items():
        mask[task, sorted(classes)] = True
    return mask


def classes_of(experience: Any) -> list[int]:
    """The classes that an experience has examples of, in ascending order."""
    announced = getattr(experience, "classes_in_this_experience", None)
    if announced is not None and hasattr(experience, "tensors"):  # a dataset announces targets, before any transform
        return sorted(int(c) for c in announced)
    return experience_data(experience).y.unique().tolist()


def normalise(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Inputs as networks take them: images in uint8 become (x / 255 - mean) / std in float32; all else stays as it is.

    Args:
        x: Inputs, shape (B, C, ...).
        mean: Mean of each of the C channels (or one of all), on the scale 0..1; empty: inputs are used as they are.
        std: Standard deviation of each of the C channels (or one of all), on the scale 0..1.
    """
    return standardise(x.to(torch.float32), mean, std) if x.dtype == torch.uint8 and mean else x


def standardise(levels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(levels / 255 - mean) / std, in place: images in grey levels as networks take them.

    Args:
        levels: Grey levels 0..255 in float, shape (B, C, ...); noise may have taken them out of this range.
        mean: As in :func:`normalise`, not empty.
        std: As in :func:`normalise`.
    """
    of_channels = (-1, *[1] * (levels.dim() - 2))
    mean_, std_ = (_on(values, levels.device).view(of_channels) for values in (mean, std))
    return levels.div_(255).sub_(mean_).div_(std_)


@lru_cache(maxsize=64)
def _on(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)
