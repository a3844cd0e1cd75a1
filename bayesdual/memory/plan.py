"""What a memory is going to keep: worked out once, when the examples of an experience are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdual.memory.shares import classes_or_one, quotas

Counts = Mapping[tuple[int, int], int]
"""Numbers by (class, experience)."""


@dataclass(frozen=True)
class Plan:
    """How a memory is shared out once the examples of an experience, or of its next piece, are counted.

    Attributes:
        experience: Index of the experience.
        counts: Examples seen by (class, experience), the new ones included.
        shares: How many exemplars each (class, experience) may keep.
        room: How many new exemplars there is room for, by class of the new examples.
    """

    experience: int
    counts: Counts
    shares: Counts
    room: Mapping[int, int]

    def staying(self, label: int, experience: int) -> int:
        """How many exemplars of before are to stay of a class and an experience, if there are as many."""
        new = self.room.get(label, 0) if experience == self.experience else 0
        return self.shares[label, experience] - new


def plan_of(before: Counts, y: Tensor, experience: int, budget: int, generator: torch.Generator | None) -> Plan:
    """Shares a budget out over what was seen before and new examples.

    An experience may come in pieces, as online streams do, under one index. Then the room for the newest is what a
    uniform draw from all pieces so far would give it (reservoir sampling, a piece at a time).

    Args:
        before: Examples seen before.
        y: Labels of the new examples, shape (N,).
        experience: Index of their experience.
        budget: Greatest number of exemplars.
        generator: Source of randomness, on the CPU; PyTorch's own if None.

    Raises:
        ValueError: The budget is smaller than the number of classes seen.
    """
    classes, numbers = (part.tolist() for part in classes_or_one(y).unique(return_counts=True))
    new = {(c, experience): n for c, n in zip(classes, numbers, strict=True)}
    counts = {**before, **{key: n + before.get(key, 0) for key, n in new.items()}}
    seen = {c for c, _ in counts}
    if 0 < budget < len(seen):
        raise ValueError(
            f"memory_size is {budget} but {len(seen)} classes have been seen: give it at least one example per class."
        )
    shares = quotas(counts, budget)
    if not budget:
        return Plan(experience, counts, shares, dict.fromkeys(classes, 0))
    room = {}
    for key in new:
        first = before.get(key, 0)  # of the newest
        drawn = torch.randperm(counts[key], generator=generator)[: shares[key]] if first else None
        room[key[0]] = shares[key] if drawn is None else int((drawn >= first).sum())
    return Plan(experience, counts, shares, room)
