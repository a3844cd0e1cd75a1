"""Grids over a target, and functions that are linear between their points.

With grid points g_1 < .. < g_K and the hat functions h_k on them (1 at g_k, 0 at its neighbours, linear between), a
density on [g_1, g_K] is

    f(y) = sum_k  p_k / w_k  h_k(y),      w_k = integral of h_k,      sum_k p_k = 1

and a target y has the two-hot label h_1(y) .. h_K(y). On equal bins w_k is the same for all but the two ends, which are
half as wide.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

GridName = Literal["range", "quantile"]


def grid_by_range(y: Tensor, bins: int) -> Tensor:
    """Points at equal distances from the smallest to the largest target.

    Args:
        y: Targets, shape (n,).
        bins: K, at least 2.

    Returns:
        Shape (K,), ascending.

    Raises:
        ValueError: The targets are all the same, or ``bins`` is less than 2.
    """
    _check(y, bins)
    return torch.linspace(float(y.min()), float(y.max()), bins, dtype=y.dtype, device=y.device)


def grid_by_quantile(y: Tensor, bins: int) -> Tensor:
    """Points at the quantiles of the targets: dense where these are; fewer than K where many targets are the same.

    Arguments, returns and errors are those of :func:`grid_by_range`.
    """
    _check(y, bins)
    return torch.quantile(
        y, torch.linspace(0, 1, bins, dtype=y.dtype, device=y.device), interpolation="nearest"
    ).unique()


def widths(grid: Tensor) -> Tensor:
    """The w_k of the module, shape (K,)."""
    gaps = grid.diff()
    zero = gaps.new_zeros(1)
    return (torch.cat([zero, gaps]) + torch.cat([gaps, zero])) / 2


def two_hot(grid: Tensor, y: Tensor) -> Tensor:
    """The hat functions at targets, shape (B, K); targets outside of the grid are moved to its ends.

    Args:
        grid: Points, shape (K,).
        y: Targets, shape (B,).
    """
    left, share = _place(grid, y.clamp(grid[0], grid[-1]))
    label = torch.zeros(len(y), len(grid), dtype=grid.dtype, device=grid.device)
    label.scatter_(1, left[:, None], (1 - share)[:, None])
    return label.scatter_(1, left[:, None] + 1, share[:, None])


def interpolate(grid: Tensor, heights: Tensor, y: Tensor) -> Tensor:
    """The function through heights at grid points, linear between them and 0 outside, at y.

    Args:
        grid: Points, shape (K,).
        heights: One function a row, shape (B, K).
        y: Where, shape (B,).

    Returns:
        Shape (B,).
    """
    left, share = _place(grid, y)
    ends = heights.gather(1, torch.stack([left, left + 1], 1))
    inside = (y >= grid[0]) & (y <= grid[-1])
    return torch.where(inside, ends[:, 0] * (1 - share) + ends[:, 1] * share, 0.0)


def _place(grid: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The grid point to the left of each target, and which share of the way to the next it is."""
    left = (torch.searchsorted(grid, y.contiguous(), right=True) - 1).clamp(0, len(grid) - 2)
    return left, (y - grid[left]) / (grid[left + 1] - grid[left])


def _check(y: Tensor, bins: int) -> None:
    if bins < 2:
        raise ValueError(f"bins is {bins}: give at least 2.")
    if bool(y.min() == y.max()):
        raise ValueError(f"the target is constant ({float(y[0]):g}): there is nothing to predict.")


GRIDS = {"range": grid_by_range, "quantile": grid_by_quantile}
