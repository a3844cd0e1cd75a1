"""Memory vectors: an exemplar made to stand for all examples around it, instead of for itself alone.

A memory of n real examples samples the past; n vectors that are free to move can match it (compact memory: Jung et
al., NeurIPS 2025). With the examples of a class shared out among its exemplars z into cells Z, each example to the
nearest,

    x_z <- sum_{i in Z} w_i x_i / sum_{i in Z} w_i,        w_z <- sum_{i in Z} w_i

A network whose first layer is linear sees x by W x only, so that there x_z gives, for every W, the mean of what the
cell gives: the match holds wherever the weights go, and does not have to be learned. A convolution sees edges, which
means of images lose: for other networks exemplars stay as they are.

When a class's share of the memory shrinks, the exemplars that must go are merged into those that stay, in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bayesdual.models import sees_means

SCATTERED = 300  # inputs that are asked how far they are from what stands for them


class Condensed(NamedTuple):
    """Inputs that stand for others.

    Attributes:
        x: Inputs, shape (n, ...), of the type of those that they stand for.
        weights: How many each stands for, shape (n,).
        apart: sqrt(w) (x - x_z) of the others, of inputs in one row, shape (m, D); None where noise of that covariance
            would not make inputs that they stand for.
    """

    x: Tensor
    weights: Tensor
    apart: Tensor | None = None


Merging = Callable[[Tensor, Tensor, int], Condensed]
"""Inputs (N, ...), the most important first, weights (N,), and n, to n <= N inputs of the same kind."""
Condensation = Callable[[nn.Module, torch.dtype], Merging | None]
"""The network and the type of its inputs, to how these are merged; None: exemplars stay as they are."""


def memory_vectors(module: nn.Module, dtype: torch.dtype) -> Merging | None:
    """``cell_means`` where the network sees means, and inputs have one, as tokens have not."""
    return cell_means if can_be_averaged(dtype) and sees_means(module) else None


def cell_means(x: Tensor, weights: Tensor, n: int) -> Condensed:
    """Merges each input after the first n into the nearest of these.

    Args:
        x: Inputs, shape (N, ...), uint8 or floating.
        weights: Number of examples that each stands for, shape (N,).
        n: How many are to stay, between 1 and N.

    Returns:
        Inputs in the order of the first n, their weights, of the same sum as ``weights``, and how far all are
        from them.

    Raises:
        ValueError: The inputs cannot be averaged, as tokens cannot.
    """
    if not can_be_averaged(x.dtype):
        raise ValueError(
            f"inputs of type {x.dtype} have no mean: give algorithm.condensation null, to keep exemplars as they are."
        )
    flat = x.flatten(1).float()
    cell = torch.cat([torch.arange(n, device=x.device), torch.cdist(flat[n:], flat[:n]).argmin(1)])
    weights = weights.to(flat)
    totals = torch.zeros(n, device=x.device).index_add_(0, cell, weights)
    sums = torch.zeros_like(flat[:n]).index_add_(0, cell, flat * weights[:, None])
    means = sums / totals[:, None]
    apart = apart_from(means[cell], flat, weights)
    means = means.view(n, *x.shape[1:])
    return Condensed((means.round() if x.dtype == torch.uint8 else means).to(x.dtype), totals, apart)


def apart_from(centres: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """sqrt(w) (x - c) of inputs, shape (n, D); of many, that of some, in place of all.

    Args:
        centres: c of each input, shape (N, D).
        x: Inputs, shape (N, D).
        weights: w, shape (N,).
    """
    some = slice(None, None, -(-len(x) // SCATTERED))
    share = weights[some] / weights[some].sum()
    return (x[some] - centres[some]) * (weights.sum() * share).sqrt()[:, None]


def can_be_averaged(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype == torch.uint8
