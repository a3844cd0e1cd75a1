"""Memory vectors: an exemplar made to stand for all examples around it, instead of for itself alone.

A memory of n real examples samples the past; n vectors that are free to move can match it (compact memory: Jung et
al., NeurIPS 2025; distribution matching: Zhao & Bilen, WACV 2023). With the examples of a class shared out among its
exemplars z into cells Z, each example to the nearest,

    x_z <- sum_{i in Z} w_i x_i / sum_{i in Z} w_i,        w_z <- sum_{i in Z} w_i

A network whose first layer is linear sees x by W x only, so that there x_z gives, for every W, the mean of what the
cell gives: the match holds wherever the weights go, and does not have to be learned. A convolution followed by pooling
sees edges, which means of images lose; there exemplars stay as they are (measured: docs/bayes_duality.md).

When a class's share of the memory shrinks, the exemplars that must go are merged into those that stay, in the same way.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Condensation = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Inputs (N, ...), the most important first, and weights (N,), to n <= N inputs of the same kind and their weights."""


def cell_means(x: Tensor, weights: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Merges each input after the first n into the nearest of these.

    Args:
        x: Inputs, shape (N, ...), uint8 or floating.
        weights: Number of examples that each stands for, shape (N,).
        n: How many are to stay, between 1 and N.

    Returns:
        Inputs, shape (n, ...), of the type of ``x``, in the order of the first n; and their weights, shape (n,), of
        the same sum as ``weights``.

    Raises:
        ValueError: The inputs cannot be averaged, as tokens cannot.
    """
    if not (x.is_floating_point() or x.dtype == torch.uint8):
        raise ValueError(
            f"inputs of type {x.dtype} have no mean: give algorithm.condensation null, to keep exemplars as they are."
        )
    flat = x.flatten(1).float()
    cell = torch.cat([torch.arange(n, device=x.device), torch.cdist(flat[n:], flat[:n]).argmin(1)])
    weights = weights.to(flat)
    totals = torch.zeros(n, device=x.device).index_add_(0, cell, weights)
    sums = torch.zeros_like(flat[:n]).index_add_(0, cell, flat * weights[:, None])
    means = (sums / totals[:, None]).view(n, *x.shape[1:])
    return (means.round() if x.dtype == torch.uint8 else means).to(x.dtype), totals


def sees_means(module: nn.Module) -> bool:
    """Whether the first layer with weights is linear in a whole input, so that means can stand for examples."""
    first = next((m for m in module.modules() if any(True for _ in m.parameters(recurse=False))), None)
    return isinstance(first, nn.Linear)
