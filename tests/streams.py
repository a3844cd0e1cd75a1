"""Tiny streams for tests: Gaussian blobs as uint8 images, learned in moments."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch.utils.data import Dataset

from bayesdual.stream import TensorData, normalise


def experience(classes, n, seed, place=0, task=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes).repeat_interleave(n)
    centres = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(99)) * 90 + 80
    noise = 20 * torch.randn(len(y), 1, 4, 4, generator=generator)
    data = TensorData(
        x=(centres[y] + noise).clamp(0, 255).to(torch.uint8),
        y=y,
        tasks=torch.full_like(y, task),
        index=torch.arange(len(y)),
        mean=(0.4,),
        std=(0.25,),
    )
    return SimpleNamespace(
        tensors=lambda: data, classes_in_this_experience=list(classes), task_labels=[task], current_experience=place
    )


def blobs(n_experiences=3, n=40, task_labels=False, valid=False):
    """Two new classes in each experience, ``n`` examples of each."""
    pairs = [(2 * i, 2 * i + 1) for i in range(n_experiences)]
    make = lambda seed: [  # noqa: E731
        experience(c, n, seed + i, i, i if task_labels else 0) for i, c in enumerate(pairs)
    ]
    streams = {"train_stream": make(0), "test_stream": make(100)}
    if valid:
        streams["valid_stream"] = make(200)
    return SimpleNamespace(**streams)


class Items(Dataset):
    """A dataset of (input, label) as people write them, with targets."""

    def __init__(self, x, y, target_transform=lambda label: label):
        self.x, self.targets, self.target_transform = x, list(y), target_transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return self.x[i], self.target_transform(self.targets[i])


def of_datasets(*streams, wrap=None):
    """An Avalanche benchmark whose experiences are datasets, read through a loader.

    Args:
        streams: Lists of (x, y), for train and test.
        wrap: Makes an Avalanche dataset of :class:`Items`; None: as_classification_dataset.
    """
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset

    made = [[(wrap or as_classification_dataset)(Items(x, y)) for x, y in stream] for stream in streams]
    return benchmark_from_datasets(**dict(zip(("train", "test"), made, strict=False)))


def blobs_behind_loaders(n=40):
    """:func:`blobs`, normalised, as datasets."""
    source = blobs(n=n)
    return of_datasets(
        *[
            [(normalise(d.x, d.mean, d.std), d.y.tolist()) for d in (e.tensors() for e in stream)]
            for stream in (source.train_stream, source.test_stream)
        ]
    )


def some_blobs(first: int = 0, n_experiences: int = 1, seed: int = 0, needs: str | None = None):
    """Experiences ``first``, ``first + 1`` and so on of :func:`blobs`, for as long as a file is there."""
    if needs is not None and not Path(needs).exists():
        raise FileNotFoundError(f"there is no {needs}")
    places = range(first, first + n_experiences)
    make = lambda seed: [experience((2 * i, 2 * i + 1), 40, seed + i, i) for i in places]  # noqa: E731
    return SimpleNamespace(train_stream=make(seed), test_stream=make(100))
