"""Memory vectors: an exemplar made to stand for all examples around it, instead of for itself alone.

A memory of n real examples samples the past; n vectors that are free to move can match it (compact memory: Jung et
al., NeurIPS 2025; distribution matching: Zhao & Bilen, WACV 2023). What is matched is what the network sees.

**Linear first** (``cell_means``). With the examples of a class shared out among its exemplars z into cells Z, each
example to the nearest,

    x_z <- sum_{i in Z} w_i x_i / sum_{i in Z} w_i,        w_z <- sum_{i in Z} w_i

A network whose first layer is linear sees x by W x only, so that there x_z gives, for every W, the mean of what the
cell gives: the match holds wherever the weights go, and does not have to be learned.

**Other networks** (``matched_features``). A convolution followed by pooling sees edges, which means of images lose.
There the exemplars of a class are moved, by STEPS steps of Adam, down

    sum_k | 1/n sum_z phi_k(x_z) - sum_i w_i phi_k(x_i) / sum_i w_i |^2 / mean_i | phi_k(x_i) - mean |^2

where phi_k are the inputs of the last layer: of the network as it is (k = 0), and with its weights drawn anew.

When a class's share of the memory shrinks, the exemplars that must go are merged into those that stay, in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bayesdual.kprior import Predict
from bayesdual.sensitivity import watching_last_linear

STEPS = 20
RATE = 0.01  # of Adam, in units of the standard deviation of the network's inputs
REDRAWN = 1  # networks with weights drawn anew
BATCH = 500
SCATTERED = 500  # inputs that are asked how far they are from what stands for them


@dataclass(frozen=True)
class Sight:
    """How a network sees the inputs of one class.

    Attributes:
        module: The network, in eval mode.
        predict: Its logits.
        t: Task label of the inputs, shape (1,).
        generator: Source of randomness, on the CPU.
    """

    module: nn.Module
    predict: Predict
    t: Tensor
    generator: torch.Generator

    def __call__(self, x: Tensor) -> Tensor | None:
        """The features of inputs (N, ...), shape (N, D), differentiable; None if no linear layer sees each of them."""
        with watching_last_linear(self.module, detach=False) as last:
            self.predict(x, self.t.expand(len(x)))
        features = last.features
        return None if features is None or len(features) != len(x) else features.flatten(1)

    def given(self, x: Tensor) -> Tensor:
        """What the network is given for inputs: images in uint8 are normalised on the way."""
        seen: list[Tensor] = []
        handle = self.module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
        try:
            self.predict(x, self.t.expand(len(x)))
        finally:
            handle.remove()
        return seen[0].float()


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


Condensation = Callable[[Tensor, Tensor, int, Sight], Condensed]
"""Inputs (N, ...), the most important first, weights (N,), and how the network sees them, to n <= N inputs of the same
kind and their weights."""


def memory_vectors(x: Tensor, weights: Tensor, n: int, sight: Sight) -> Condensed:
    """What suits the network: ``cell_means``, ``matched_features``, or the first n as they are.

    Exemplars stay as they are where inputs cannot be moved, as tokens cannot, or the network has no last linear layer.
    For the arguments and what is returned see :func:`cell_means`.
    """
    if not can_be_averaged(x):
        return as_they_are(x, weights, n, sight)
    return (cell_means if sees_means(sight.module) else matched_features)(x, weights, n, sight)


def as_they_are(x: Tensor, weights: Tensor, n: int, sight: Sight) -> Condensed:
    """The first n, with equal weights."""
    return Condensed(x[:n], weights.sum().expand(n) / n)


def cell_means(x: Tensor, weights: Tensor, n: int, sight: Sight | None = None) -> Condensed:
    """Merges each input after the first n into the nearest of these.

    Args:
        x: Inputs, shape (N, ...), uint8 or floating.
        weights: Number of examples that each stands for, shape (N,).
        n: How many are to stay, between 1 and N.
        sight: Not used: the match does not depend on the network's weights.

    Returns:
        Inputs in the order of the first n, their weights, of the same sum as ``weights``, and how far all are apart from them.

    Raises:
        ValueError: The inputs cannot be averaged, as tokens cannot.
    """
    if not can_be_averaged(x):
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


@torch.enable_grad()
def matched_features(x: Tensor, weights: Tensor, n: int, sight: Sight) -> Condensed:
    """Moves the first n inputs until the mean of their features is that of all; equal weights, no spread.

    For the arguments and what is returned see :func:`cell_means`; the inputs stay within the range of ``x``, or of
    uint8.
    """
    low, high = (0.0, 255.0) if x.dtype == torch.uint8 else (float(x.min()), float(x.max()))
    ends = sight.given(torch.stack([torch.full_like(x[0], low), torch.full_like(x[0], high)]))
    offset, scale = ends[0], (ends[1] - ends[0]) / ((high - low) or 1.0)

    def given(part: Tensor) -> Tensor:
        return offset + scale * (part.float() - low)

    share = weights.float() / weights.sum()
    networks = [{}, *(redrawn(sight.module, sight.generator) for _ in range(REDRAWN))]
    targets, spreads = [], []
    for tensors in networks:
        with holding(sight.module, tensors), torch.no_grad():
            parts = [sight(given(part)) for part in x.split(BATCH)]
        if parts[0] is None:
            return as_they_are(x, weights, n, sight)
        features = torch.cat(parts)
        targets.append(share @ features)
        spreads.append(share @ (features - targets[-1]).square().sum(1))
    moved = given(x[:n]).requires_grad_()
    bottom, top = torch.minimum(*ends), torch.maximum(*ends)
    optimizer = torch.optim.Adam([moved], RATE)
    for _ in range(STEPS):
        moved.grad = torch.zeros_like(moved)
        for tensors, target, spread in zip(networks, targets, spreads, strict=True):
            with holding(sight.module, tensors):
                distance = (sight(moved).mean(0) - target).square().sum() / spread.clamp_min(1e-12)
                moved.grad += torch.autograd.grad(distance, moved)[0]
        optimizer.step()
        with torch.no_grad():
            moved.clamp_(bottom, top)
    result = (moved.detach() - offset) / scale.where(scale != 0, 1.0) + low
    result = (result.round() if x.dtype == torch.uint8 else result).to(x.dtype)
    return Condensed(result, weights.sum().expand(n) / n)


def redrawn(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Parameters and buffers as they would be at the start of training, of all layers that can say so."""
    device = next(module.parameters()).device
    copy = deepcopy(module).to("cpu")  # whose generator is set and restored here
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        for layer in copy.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    return {name: t.to(device) for name, t in chain(copy.named_parameters(), copy.named_buffers())}


@contextmanager
def holding(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Lets parameters and buffers have other values while entered; their own storage is untouched."""
    own = {name: t for name, t in chain(module.named_parameters(), module.named_buffers()) if name in tensors}
    old = {name: t.data for name, t in own.items()}
    try:
        for name, t in own.items():
            t.data = tensors[name].data
        yield
    finally:
        for name, t in own.items():
            t.data = old[name]


def can_be_averaged(x: Tensor) -> bool:
    return x.is_floating_point() or x.dtype == torch.uint8


def sees_means(module: nn.Module) -> bool:
    """Whether the first layer with weights is linear in a whole input, so that means can stand for examples."""
    first = next((m for m in module.modules() if any(True for _ in m.parameters(recurse=False))), None)
    return isinstance(first, nn.Linear)
