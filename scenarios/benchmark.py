"""From a raw dataset to an Avalanche benchmark whose experiences can also give their data as tensors.

A benchmark is a list of experiences per stream; an experience here is a choice of rows of the source data, a
view (what happens to the pixels) and a task label. The source is held once; rows are gathered and views
applied when data is asked for, one example at a time by Avalanche (``experience.dataset``), or all at once by
whoever wants tensors (``experience.tensors()``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol, cast

import numpy as np
import torch
from avalanche.benchmarks.scenarios import CLScenario, DatasetExperience, EagerCLStream
from avalanche.benchmarks.utils import ConstantSequence, DataAttribute, TaskLabels
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from torch import Tensor
from torch.utils.data import Dataset

from bayesdual.scenarios.datasets import RawDataset, stratified_split
from bayesdual.stream import TensorData, normalise

View = Callable[[Tensor], Tensor]
"""What an experience does to its inputs: images in uint8 (N, C, H, W) to the same, each alone."""


def identity(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Slot:
    """What one experience shows: the examples of some classes, through a view.

    Attributes:
        classes: The classes whose examples are in it.
        view: What happens to their pixels.
    """

    classes: tuple[int, ...]
    view: View = identity


@dataclass(frozen=True, eq=False)
class Rows(Dataset):
    """Some rows of a source that is held, seen through a view.

    Attributes:
        x: All inputs of the source, shape (N, ...): uint8 images (N, C, H, W), or numbers; shared, not copied.
        y: All labels of the source, shape (N,), int64; targets that are numbers, float32.
        rows: Positions in the source of the examples in this dataset, shape (n,), int64.
        view: What happens to the inputs.
        task_label: The task label of all examples.
        mean: Mean of each channel of images, on the scale 0..1; empty for numbers.
        std: Standard deviation of each channel of images, on the scale 0..1; empty for numbers.
        origin: What made the inputs, where they are features; empty: nothing did.
    """

    x: Tensor
    y: Tensor
    rows: Tensor
    view: View
    task_label: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int | float]:
        """Returns the input as networks take it, images as float32 of shape (C, H, W), and its label."""
        row = self.rows[i]
        image = self.view(self.x[row].unsqueeze(0))
        return normalise(image, self.mean, self.std).squeeze(0), self.y[row].item()

    @property
    def labels(self) -> list[int] | list[float]:
        return self.y[self.rows].tolist()

    def tensors(self) -> TensorData:
        return TensorData(
            x=self.view(self.x[self.rows]),
            y=self.y[self.rows],
            tasks=torch.full((len(self),), self.task_label, dtype=torch.int64),
            index=self.rows.clone(),
            mean=self.mean,
            std=self.std,
            origin=self.origin,
        )


class Labelled(Protocol):
    """A dataset whose labels are known without reading its examples."""

    @property
    def task_label(self) -> int: ...

    @property
    def labels(self) -> list[int] | list[float]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[Tensor, int | float]: ...


class LabelledExperience(DatasetExperience):
    """An Avalanche experience over a dataset with known labels.

    It has all that Avalanche's strategies and ``with_classes_timeline`` and ``with_task_labels`` know:
    ``dataset``, ``classes_in_this_experience``, ``previous_classes``, ``classes_seen_so_far``,
    ``future_classes``, ``task_label``, ``task_labels``, ``benchmark``.

    Args:
        examples: The dataset.
        current_experience: Which experience of the stream it is.
        timeline: The classes of each experience of the training stream.
    """

    def __init__(self, examples: Labelled, current_experience: int, timeline: Sequence[Collection[int]]) -> None:
        labels = cast(Any, examples.labels)  # a list, as Avalanche itself gives one
        dataset = TaskAwareSupervisedClassificationDataset(
            [cast(Any, examples)],
            data_attributes=[
                DataAttribute(labels, "targets"),
                TaskLabels(ConstantSequence(examples.task_label, len(examples))),
            ],
        )
        super().__init__(dataset=dataset, current_experience=current_experience)
        before = {c for classes in timeline[:current_experience] for c in classes}
        now = set(timeline[current_experience])
        after = {c for classes in timeline for c in classes} - before - now
        self.classes_in_this_experience = sorted(now)
        self.previous_classes = sorted(before)
        self.classes_seen_so_far = sorted(before | now)
        self.future_classes = sorted(after)
        self.task_label = examples.task_label
        self.task_labels = [examples.task_label]

    @property
    def benchmark(self) -> LabelledBenchmark:
        """The benchmark this experience belongs to."""
        return cast(LabelledBenchmark, self.origin_stream.benchmark)


class TensorExperience(LabelledExperience):
    """An Avalanche experience over :class:`Rows`, which can also be had as tensors."""

    def __init__(self, examples: Rows, current_experience: int, timeline: Sequence[Collection[int]]) -> None:
        super().__init__(examples, current_experience, timeline)
        self.rows = examples

    def tensors(self) -> TensorData:
        """Returns the data of this experience, gathered again in each call.

        ``x`` has the view applied; images are uint8, shape (N, C, H, W), and not normalised. ``index`` is the position
        in the source: of a dataset with an official split, in its training set (for the test stream: in its test set).
        The items of ``dataset`` are the same images as ``(x / 255 - mean) / std``.
        """
        return self.rows.tensors()


class LabelledBenchmark(CLScenario):
    """An Avalanche benchmark with streams ``train``, ``test`` and, if asked for, ``valid``.

    Attributes:
        train_stream: The experiences to learn; those of a ``TensorBenchmark`` are held as tensors.
        test_stream: As many, to evaluate each on. ``valid_stream`` is there only if it was asked for.
        class_names: The names of the classes, by label; none where targets are numbers.
        n_classes: Number of classes, over all experiences; 0 where targets are numbers.
        n_experiences: Number of experiences in each stream.
        n_classes_per_exp: Number of classes in each experience.
        classes_order: Labels in the order in which the experiences bring them.
        encoding: Makes inputs of further rows of what the benchmark was made of; None: they are taken as they are.
    """

    train_stream: EagerCLStream
    test_stream: EagerCLStream
    encoding: Callable[[Any], Tensor] | None = None

    def __init__(
        self, streams: Sequence[EagerCLStream], timeline: Sequence[Collection[int]], class_names: tuple[str, ...]
    ) -> None:
        super().__init__(streams)
        for stream in streams:
            stream.benchmark = self  # Avalanche's evaluation looks for it there
        self.class_names = class_names
        self.n_classes = len(class_names)
        self.n_experiences = len(timeline)
        self.n_classes_per_exp = [len(classes) for classes in timeline]
        self.classes_order = list(dict.fromkeys(c for classes in timeline for c in classes))


class TensorBenchmark(LabelledBenchmark):
    """A :class:`LabelledBenchmark` whose experiences can also give their data as tensors."""

    train_stream: EagerCLStream[TensorExperience]
    test_stream: EagerCLStream[TensorExperience]


def make_benchmark(
    data: RawDataset, slots: Sequence[Slot], *, seed: int, validation: float, task_labels: bool
) -> TensorBenchmark:
    """Builds the streams of a benchmark.

    Args:
        data: The source.
        slots: What each experience shows, in the order of the experiences.
        seed: Seed of the split into training and validation data.
        validation: Share of the training data, class by class, that makes the stream ``valid``, in [0, 1); 0:
            there is no such stream. The same examples are held out in all experiences.
        task_labels: Whether experience i has task label i; otherwise all have 0.

    Raises:
        ValueError: ``validation`` is out of range, or a class has no example in one of the streams.
    """
    check_validation(validation)
    train_rows, valid_rows = stratified_split(data.train_y, validation, seed)
    parts = {
        "train": (data.train_x, data.train_y, train_rows),
        "valid": (data.train_x, data.train_y, valid_rows),
        "test": (data.test_x, data.test_y, np.arange(len(data.test_y))),
    }
    if validation == 0:
        del parts["valid"]
    timeline = [slot.classes for slot in slots]
    streams = []
    for name, (x, y, rows) in parts.items():
        labels = y.numpy()[rows]
        if absent := sorted(set(range(data.n_classes)) - set(labels.tolist())):
            raise ValueError(
                f"{data.name} has no example of class {absent[0]} for the stream {name!r} with "
                f"validation={validation}: choose another share, or complete the data."
            )
        experiences = []
        for i, slot in enumerate(slots):
            mine = torch.from_numpy(rows[np.isin(labels, slot.classes)])
            examples = Rows(x, y, mine, slot.view, i if task_labels else 0, data.mean, data.std)
            experiences.append(TensorExperience(examples, i, timeline))
        streams.append(EagerCLStream(name, experiences))
    return TensorBenchmark(streams, timeline, data.classes)


def check_validation(validation: float) -> None:
    if not 0 <= validation < 1:
        raise ValueError(f"validation is a share of the training data in [0, 1), not {validation}.")


def check_n_experiences(n_experiences: int) -> None:
    if not isinstance(n_experiences, Integral) or n_experiences < 1:
        raise ValueError(f"n_experiences is a whole number of at least 1, not {n_experiences!r}.")
