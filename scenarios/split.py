"""Split benchmarks: every experience brings classes that no other has (class- or task-incremental).

Without task labels they are class-incremental: one head over all classes, and a test example may be of any
class seen. With ``task_labels=True`` they are task-incremental: experience i carries task label i. Labels
stay the original class numbers in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from bayesdual.scenarios import datasets
from bayesdual.scenarios.benchmark import Slot, TensorBenchmark, check_n_experiences, make_benchmark


def split_classes(n_classes: int, n_experiences: int, class_order: Sequence[int]) -> list[tuple[int, ...]]:
    """Deals the classes out in their order, equally many to each experience.

    Raises:
        ValueError: The order is no permutation of the classes, or they do not divide evenly.
    """
    check_n_experiences(n_experiences)
    if sorted(class_order) != list(range(n_classes)):
        raise ValueError(
            f"class_order names each class of 0..{n_classes - 1} exactly once, unlike {list(class_order)}."
        )
    if n_classes % n_experiences:
        divisors = [str(d) for d in range(1, n_classes + 1) if n_classes % d == 0]
        raise ValueError(
            f"{n_classes} classes cannot be split into {n_experiences} experiences of equal size: "
            f"take n_experiences out of {', '.join(divisors)}."
        )
    size = n_classes // n_experiences
    return [tuple(class_order[i : i + size]) for i in range(0, n_classes, size)]


def split_benchmark(
    source: datasets.RawDataset,
    n_experiences: int,
    *,
    class_order: Sequence[int] | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
) -> TensorBenchmark:
    """Splits any dataset by its classes.

    Args:
        source: The dataset.
        n_experiences: Number of experiences; it must divide the number of classes.
        class_order: The classes in the order in which they come; None: 0, 1, 2, ...
        shuffle_classes: Draw the order from the seed instead.
        seed: Seed of the order (if shuffled) and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``; 0: no such
            stream.
        task_labels: Whether experience i carries task label i (task-incremental); otherwise all carry 0.

    Raises:
        ValueError: An argument is out of range, or two contradict each other.
    """
    if class_order is not None and shuffle_classes:
        raise ValueError("class_order gives the order of the classes, so shuffle_classes must be false.")
    if shuffle_classes:
        class_order = torch.randperm(source.n_classes, generator=torch.Generator().manual_seed(seed)).tolist()
    elif class_order is None:
        class_order = range(source.n_classes)
    slots = [Slot(classes) for classes in split_classes(source.n_classes, n_experiences, class_order)]
    return make_benchmark(source, slots, seed=seed, validation=validation, task_labels=task_labels)


def SplitDigits(
    n_experiences: int = 5,
    class_order: list[int] | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
) -> TensorBenchmark:
    """The digits of scikit-learn (8x8), split by class; nothing is downloaded.

    Args:
        n_experiences: Number of experiences; it must divide 10.
        class_order: The classes in the order in which they come; None: 0, 1, 2, ...
        shuffle_classes: Draw the order from the seed instead.
        seed: Seed of the order (if shuffled) and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
    """
    return split_benchmark(
        datasets.digits(),
        n_experiences,
        class_order=class_order,
        shuffle_classes=shuffle_classes,
        seed=seed,
        validation=validation,
        task_labels=task_labels,
    )


def SplitMNIST(
    n_experiences: int = 5,
    class_order: list[int] | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> TensorBenchmark:
    """MNIST (28x28), split by class.

    Args:
        n_experiences: Number of experiences; it must divide 10.
        class_order: The classes in the order in which they come; None: 0, 1, 2, ...
        shuffle_classes: Draw the order from the seed instead.
        seed: Seed of the order (if shuffled) and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is, or is downloaded to (see :func:`bayesdual.scenarios.datasets.mnist`).
    """
    return split_benchmark(
        datasets.mnist(root),
        n_experiences,
        class_order=class_order,
        shuffle_classes=shuffle_classes,
        seed=seed,
        validation=validation,
        task_labels=task_labels,
    )


def SplitFMNIST(
    n_experiences: int = 5,
    class_order: list[int] | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> TensorBenchmark:
    """Fashion-MNIST (28x28), split by class.

    Args:
        n_experiences: Number of experiences; it must divide 10.
        class_order: The classes in the order in which they come; None: 0, 1, 2, ...
        shuffle_classes: Draw the order from the seed instead.
        seed: Seed of the order (if shuffled) and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is, or is downloaded to (see :func:`bayesdual.scenarios.datasets.fashion_mnist`).
    """
    return split_benchmark(
        datasets.fashion_mnist(root),
        n_experiences,
        class_order=class_order,
        shuffle_classes=shuffle_classes,
        seed=seed,
        validation=validation,
        task_labels=task_labels,
    )


def SplitCIFAR10(
    n_experiences: int = 5,
    class_order: list[int] | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> TensorBenchmark:
    """CIFAR-10 (3x32x32), split by class.

    Args:
        n_experiences: Number of experiences; it must divide 10.
        class_order: The classes in the order in which they come; None: 0, 1, 2, ...
        shuffle_classes: Draw the order from the seed instead.
        seed: Seed of the order (if shuffled) and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is, or is downloaded to (see :func:`bayesdual.scenarios.datasets.cifar10`).
    """
    return split_benchmark(
        datasets.cifar10(root),
        n_experiences,
        class_order=class_order,
        shuffle_classes=shuffle_classes,
        seed=seed,
        validation=validation,
        task_labels=task_labels,
    )


def SplitCIFAR100(
    n_experiences: int = 10,
    class_order: list[int] | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> TensorBenchmark:
    """CIFAR-100 (3x32x32, the fine classes), split by class.

    Args:
        n_experiences: Number of experiences; it must divide 100.
        class_order: The classes in the order in which they come; None: 0, 1, 2, ...
        shuffle_classes: Draw the order from the seed instead.
        seed: Seed of the order (if shuffled) and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is, or is downloaded to (see :func:`bayesdual.scenarios.datasets.cifar100`).
    """
    return split_benchmark(
        datasets.cifar100(root),
        n_experiences,
        class_order=class_order,
        shuffle_classes=shuffle_classes,
        seed=seed,
        validation=validation,
        task_labels=task_labels,
    )
