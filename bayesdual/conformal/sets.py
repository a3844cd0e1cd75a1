"""Prediction sets of a real target: unions of intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Interval = tuple[float, float]
"""Its two ends, which belong to it."""
Sets = list[list[Interval]]
"""For each row disjoint intervals in ascending order; none for the empty set."""


def superlevel_sets(grid: Tensor, heights: Tensor, threshold: float) -> Sets:
    """{y : f(y) >= threshold} of functions that are linear between grid points, and 0 outside.

    Args:
        grid: Points, shape (K,), ascending.
        heights: Values of each function at these, not negative, shape (B, K).
        threshold: The level; with 0 or less a set is the whole line.
    """
    if threshold <= 0:
        return [[(-math.inf, math.inf)] for _ in heights]
    above = heights >= threshold
    left, right = heights[:, :-1], heights[:, 1:]
    share = ((threshold - left) / (right - left)).clamp(0, 1)  # meant only where one of the two is above
    crossing = grid[:-1] + share * grid.diff()
    begins = above & ~F.pad(above[:, :-1], (1, 0))
    ends = above & ~F.pad(above[:, 1:], (0, 1))
    lows = torch.cat([grid[:1].expand(len(heights), 1), crossing], 1)[begins].tolist()
    highs = torch.cat([crossing, grid[-1:].expand(len(heights), 1)], 1)[ends].tolist()
    intervals = iter(zip(lows, highs, strict=True))
    return [[next(intervals) for _ in range(n)] for n in begins.sum(1).tolist()]


def intervals(low: Tensor, high: Tensor) -> Sets:
    """One interval a row, or none where its ends have crossed.

    Args:
        low: Lower ends, shape (B,).
        high: Upper ends, shape (B,).
    """
    return [[(a, b)] if a <= b else [] for a, b in zip(low.tolist(), high.tolist(), strict=True)]


def lengths(sets: Sets) -> list[float]:
    """How long each set is: its intervals' lengths added up."""
    return [sum(high - low for low, high in row) for row in sets]


def covered(sets: Sets, y: Sequence[float]) -> list[bool]:
    """Whether each target is in its set."""
    return [any(low <= value <= high for low, high in row) for row, value in zip(sets, y, strict=True)]
