"""Permuted and rotated benchmarks: each experience has all classes, seen in another way (domain-incremental).

The first experience is the original data. Images stay uint8: a permutation moves pixels, and a rotation
interpolates between the four nearest in whole numbers, so that one image gives the same bytes alone, in a
batch, and on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bayesdual.scenarios import datasets
from bayesdual.scenarios.benchmark import (
    Slot,
    TensorBenchmark,
    View,
    check_n_experiences,
    identity,
    make_benchmark,
)

_CHUNK = 1024  # images rotated at a time: what lies between stays in the cache


@dataclass(frozen=True, eq=False)
class Permutation:
    """Moves the pixels of each image, all images and channels alike.

    Attributes:
        source: The position in the flattened image that each pixel comes from, shape (H * W,), int64.
    """

    source: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        # np.take: on bytes several times as fast as indexing in torch
        return torch.from_numpy(np.take(x.flatten(2).numpy(), self.source.numpy(), axis=2)).view_as(x)


@dataclass(frozen=True)
class Rotation:
    """Turns each image about its centre, counter-clockwise; what comes from outside is 0.

    Attributes:
        degrees: The angle.
    """

    degrees: float

    def __call__(self, x: Tensor) -> Tensor:
        sources, weights = rotation_stencil(x.shape[-2], x.shape[-1], self.degrees)
        flat = x.flatten(2).numpy()
        out = np.empty_like(flat)
        for start in range(0, len(flat), _CHUNK):
            part = flat[start : start + _CHUNK]
            total = np.full(part.shape, 128, dtype=np.uint16)  # one half of 256, to round
            for source, weight in zip(sources, weights, strict=True):
                total += np.take(part, source, axis=2) * weight
            out[start : start + _CHUNK] = total >> 8
        return torch.from_numpy(out).view_as(x)


@lru_cache(maxsize=64)
def rotation_stencil(height: int, width: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns which four pixels make each pixel of a rotated image, and with what weight.

    Bilinear interpolation: the rotation brings each pixel to a point between four others, whose mean it
    becomes, weighted by closeness in sixteenths of a pixel.

    Args:
        height: H of the image.
        width: W of the image.
        degrees: Angle, counter-clockwise.

    Returns:
        Positions in the flattened image, shape (4, H * W), int64; weights in units of 1/256, shape
        (4, H * W), uint16: those of a pixel add up to 256, less what lies outside of the image.
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    row, column = np.divmod(np.arange(height * width), width)
    row, column = row - (height - 1) / 2, column - (width - 1) / 2
    from_row = np.rint((cos * row + sin * column + (height - 1) / 2) * 16).astype(np.int64)
    from_column = np.rint((cos * column - sin * row + (width - 1) / 2) * 16).astype(np.int64)
    sources, weights = [], []
    for down in (0, 1):
        for right in (0, 1):
            r, c = from_row // 16 + down, from_column // 16 + right
            weight_r = from_row % 16 if down else 16 - from_row % 16
            weight_c = from_column % 16 if right else 16 - from_column % 16
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            sources.append(r.clip(0, height - 1) * width + c.clip(0, width - 1))
            weights.append((weight_r * weight_c * inside).astype(np.uint16))
    return np.stack(sources), np.stack(weights)


def permutations(n_experiences: int, n_pixels: int, seed: int) -> list[View]:
    """Returns the views of a permuted stream: the first leaves the images alone, the others are drawn."""
    check_n_experiences(n_experiences)
    generator = torch.Generator().manual_seed(seed)
    drawn = [Permutation(torch.randperm(n_pixels, generator=generator)) for _ in range(n_experiences - 1)]
    return [identity, *drawn]


def rotations_of(n_experiences: int, rotations: Sequence[float] | None) -> list[View]:
    """Returns the views of a rotated stream.

    Args:
        n_experiences: Number of experiences.
        rotations: The angle of each, in degrees; None: i * 180 / n_experiences for experience i.

    Raises:
        ValueError: There is not one finite angle for each experience.
    """
    check_n_experiences(n_experiences)
    if rotations is None:
        rotations = [i * 180 / n_experiences for i in range(n_experiences)]
    if len(rotations) != n_experiences or not all(math.isfinite(angle) for angle in rotations):
        raise ValueError(
            f"rotations has one angle in degrees for each of the {n_experiences} experiences, unlike {list(rotations)}."
        )
    return [identity if angle == 0 else Rotation(float(angle)) for angle in rotations]


def domain_benchmark(
    source: datasets.RawDataset,
    views: Sequence[View],
    *,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
) -> TensorBenchmark:
    """Shows all of any dataset in each experience, through one view after the other.

    Args:
        source: The dataset.
        views: What each experience does to the images, uint8 (N, C, H, W) to the same.
        seed: Seed of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``; the same
            examples in all experiences.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.

    Raises:
        ValueError: ``validation`` is out of range.
    """
    slots = [Slot(tuple(range(source.n_classes)), view) for view in views]
    return make_benchmark(source, slots, seed=seed, validation=validation, task_labels=task_labels)


def PermutedDigits(
    n_experiences: int = 5,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
) -> TensorBenchmark:
    """The digits of scikit-learn (8x8), the pixels in another order in each experience but the first.

    Args:
        n_experiences: Number of experiences.
        seed: Seed of the permutations and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
    """
    return _permuted(datasets.digits(), n_experiences, seed, validation, task_labels)


def PermutedMNIST(
    n_experiences: int = 10,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> TensorBenchmark:
    """MNIST (28x28), the pixels in another order in each experience but the first.

    Args:
        n_experiences: Number of experiences.
        seed: Seed of the permutations and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is, or is downloaded to (see :func:`bayesdual.scenarios.datasets.mnist`).
    """
    return _permuted(datasets.mnist(root), n_experiences, seed, validation, task_labels)


def PermutedFMNIST(
    n_experiences: int = 5,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> TensorBenchmark:
    """Fashion-MNIST (28x28), the pixels in another order in each experience but the first.

    Args:
        n_experiences: Number of experiences.
        seed: Seed of the permutations and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is, or is downloaded to (see :func:`bayesdual.scenarios.datasets.fashion_mnist`).
    """
    return _permuted(datasets.fashion_mnist(root), n_experiences, seed, validation, task_labels)


def RotatedDigits(
    n_experiences: int = 5,
    rotations: list[float] | None = None,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
) -> TensorBenchmark:
    """The digits of scikit-learn (8x8), turned by another angle in each experience.

    Args:
        n_experiences: Number of experiences.
        rotations: The angle of each, in degrees, counter-clockwise; None: i * 180 / n_experiences, so that
            the first is not turned.
        seed: Seed of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
    """
    views = rotations_of(n_experiences, rotations)
    return domain_benchmark(datasets.digits(), views, seed=seed, validation=validation, task_labels=task_labels)


def RotatedMNIST(
    n_experiences: int = 5,
    rotations: list[float] | None = None,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> TensorBenchmark:
    """MNIST (28x28), turned by another angle in each experience.

    Args:
        n_experiences: Number of experiences.
        rotations: The angle of each, in degrees, counter-clockwise; None: i * 180 / n_experiences, so that
            the first is not turned.
        seed: Seed of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is, or is downloaded to (see :func:`bayesdual.scenarios.datasets.mnist`).
    """
    views = rotations_of(n_experiences, rotations)
    return domain_benchmark(datasets.mnist(root), views, seed=seed, validation=validation, task_labels=task_labels)


def _permuted(
    source: datasets.RawDataset, n_experiences: int, seed: int, validation: float, task_labels: bool
) -> TensorBenchmark:
    views = permutations(n_experiences, source.train_x[0, 0].numel(), seed)
    return domain_benchmark(source, views, seed=seed, validation=validation, task_labels=task_labels)
