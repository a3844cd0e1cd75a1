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
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bayesdual.memory.exemplars import Exemplars
from bayesdual.memory.spread import AnySpread
from bayesdual.models import sees_means

TOGETHER = 500  # exemplars of which the nearest is found
SCATTERED = 300  # inputs that are asked how far they are from what stands for them


class Condensed(NamedTuple):
    """Inputs that stand for others.

    Attributes:
        x: Inputs, shape (n, ...), of the type of those that they stand for.
        weights: How many each stands for, shape (n,).
        deviations: sqrt(w) (x - x_z) of the others, shape (m, ...); None where noise of that covariance
            would not make inputs that they stand for.
    """

    x: Tensor
    weights: Tensor
    deviations: Tensor | None = None


Merging = Callable[[Tensor, Tensor, int], Condensed]
"""Inputs (N, ...), the most important first, weights (N,), and n, to n <= N inputs of the same kind."""
Condensation = Callable[[nn.Module, torch.dtype], Merging | None]
"""The network and the type of its inputs, to how these are merged; None: exemplars stay as they are."""


class Condenser:
    """Makes exemplars of a class stand for others of it, too; what their means leave out goes into the spread.

    Args:
        condensation: How inputs are merged, of which network and type; None: exemplars stay as they are.
        module: The network.
        spread: Of the examples around the exemplars; None: what means leave out is lost.
        generator: Source of randomness, on the CPU.
    """

    def __init__(
        self,
        condensation: Condensation | None,
        module: nn.Module,
        spread: AnySpread | None,
        generator: torch.Generator,
    ) -> None:
        self._condensation = condensation
        self._module = module
        self._spread = spread
        self._generator = generator

    def applies_to(self, x: Tensor) -> bool:
        """Whether inputs of this type are merged at all."""
        return self._merging(x.dtype) is not None

    def __call__(self, exemplars: Exemplars, x: Tensor, weights: Tensor, examples: float | None = None) -> Exemplars:
        """Returns the exemplars, standing for others too.

        Args:
            exemplars: M exemplars of one class, of a type that this applies to.
            x: The inputs of others of the class, shape (N, ...).
            weights: Number of examples that each of these stands for, shape (N,).
            examples: How many examples all of them stand for; None: as many as the weights say.
        """
        merge = self._merging(x.dtype)
        if merge is None:
            raise ValueError(f"inputs of type {x.dtype} are not merged for this network: ask applies_to first.")
        x, weights = torch.cat([exemplars.x, x]), torch.cat([exemplars.weights, weights])
        new = merge(x, weights, len(exemplars))
        if new.deviations is not None and self._spread is not None:
            more = 1.0 if examples is None else examples / float(weights.sum())
            self._spread.add(new.deviations * more**0.5, self._generator)
        return replace(exemplars, x=new.x, weights=new.weights)

    def lose(self, deviations: Tensor) -> None:
        """Takes what inputs lose otherwise than by merging into the spread: sqrt(w) (x - x_z), shape (n, ...)."""
        if self._spread is not None:
            self._spread.add(deviations, self._generator)

    def _merging(self, dtype: torch.dtype) -> Merging | None:
        return None if self._condensation is None else self._condensation(self._module, dtype)


def memory_vectors(module: nn.Module, dtype: torch.dtype) -> Merging | None:
    """``cell_means`` where the network sees means, and inputs have one, as tokens have not."""
    return cell_means if sees_means(module) and can_be_averaged(dtype) else None


def cell_means(x: Tensor, weights: Tensor, n: int) -> Condensed:
    """Merges each input after the first n into the nearest of these.

    Args:
        x: Inputs, shape (N, ...), uint8 or floating.
        weights: Number of examples that each stands for, shape (N,).
        n: How many are to stay, between 1 and N.

    Returns:
        Inputs in the order of the first n, their weights, of the same sum as ``weights``, and the deviations of all
        from them.

    Raises:
        ValueError: The inputs cannot be averaged, as tokens cannot.
    """
    if not can_be_averaged(x.dtype):
        raise ValueError(
            f"inputs of type {x.dtype} have no mean: give algorithm.condensation null, to keep exemplars as they are."
        )
    flat = x.flatten(1).float()
    cell = torch.cat([torch.arange(n, device=x.device), _nearest(flat[n:], flat[:n])])
    weights = weights.to(flat)
    totals = torch.zeros(n, device=x.device).index_add_(0, cell, weights)
    sums = torch.zeros_like(flat[:n]).index_add_(0, cell, flat * weights[:, None])
    means = sums / totals[:, None]
    deviations = deviations_from(means[cell], flat, weights).view(-1, *x.shape[1:])
    means = means.view(n, *x.shape[1:])
    return Condensed((means.round() if x.dtype == torch.uint8 else means).to(x.dtype), totals, deviations)


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    """The centre (n, D) of each row of ``x`` (m, D), shape (m,): of many centres, the nearest of some."""
    parts = -(-len(centres) // TOGETHER)
    nearest = torch.empty(len(x), dtype=torch.int64, device=x.device)
    for i in range(parts):
        nearest[i::parts] = torch.cdist(x[i::parts], centres[i::parts]).argmin(1) * parts + i
    return nearest


def deviations_from(centres: Tensor, x: Tensor, weights: Tensor) -> Tensor:
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
    """Whether inputs of a type have a mean, as images have and tokens have not."""
    return dtype.is_floating_point or dtype == torch.uint8
