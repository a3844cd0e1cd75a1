"""Tiny streams for tests: Gaussian blobs as uint8 images, learned in moments."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from bayesdual.stream import TensorData


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
