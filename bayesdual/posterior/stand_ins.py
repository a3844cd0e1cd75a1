"""Inputs that stand for all examples of the past, each for as many as its weight says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bayesdual.stream import ExperienceData, normalise


@dataclass(frozen=True)
class StandIns:
    """Inputs that stand for past examples.

    Attributes:
        inputs: Shape (N, ...), as networks take them.
        tasks: Their task labels, shape (N,), int64.
        weights: Number of past examples that each stands for, shape (N,), float32.
    """

    inputs: Tensor
    tasks: Tensor
    weights: Tensor

    def __getitem__(self, rows: Tensor) -> StandIns:
        return StandIns(self.inputs[rows], self.tasks[rows], self.weights[rows])


def joined(parts: Sequence[StandIns]) -> StandIns:
    """All of them."""
    return StandIns(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(StandIns)))


def drawn_examples(
    data: ExperienceData, n: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> StandIns:
    """Real examples that stand for an experience: n of N, drawn without replacement, each for N / n.

    Args:
        data: The experience's examples.
        n: How many; of fewer all are taken.
        generator: Source of randomness, on the CPU.
        device: Where they are wanted.
    """
    rows = torch.randperm(len(data.y), generator=generator)[:n]
    inputs = normalise(data.inputs(rows).to(device), data.mean, data.std)
    weights = torch.full((len(rows),), len(data.y) / max(1, len(rows)), device=device)
    return StandIns(inputs, data.tasks[rows].to(device), weights)
