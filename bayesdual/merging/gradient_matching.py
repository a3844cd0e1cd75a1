"""Uncertainty-based gradient matching: what the models' gradients would be elsewhere, from their curvature.

Each model is at the minimum of its loss plus what stands for the base's, 1/2 |theta - theta_0|^2 in the norm of
s_0 H_0 + delta_0. If losses are quadratic, of curvature H_t, the minimum of alpha times their sum plus the base's is

    theta = theta_0 + alpha sum_t Hbar^-1 (s_t H_t + s_0 H_0 + delta_0) (theta_t - theta_0),
    Hbar  = alpha sum_t s_t H_t + s_0 H_0 + delta_0

With diagonal H it is solved entry by entry. With Kronecker factors, H_t X = G_t X A_t for a change X of a layer's
weights, Hbar is a sum of Kronecker products, and is solved by conjugate gradients on matrices, preconditioned by the
single product that has the sum's partial traces. Both factors are made less sure of themselves,

    G  <-  G + lambda tr(G) / O I,      A  <-  A, its entries off the diagonal multiplied by a factor, as in RegMean,

since the curvature at theta_t is not that at theta; with lambda to infinity only the inputs count. Where Hbar is 0, it
is task arithmetic: the limit of a small delta_0.

Source: Daheim et al., "Model merging by uncertainty-based gradient matching", ICLR 2024; with Kronecker factors: here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdual.merging.block import Block, diagonal_of, shrunk
from bayesdual.posterior import KroneckerFactors

ITERATIONS = 1000


def gradient_matching(
    block: Block,
    prior_precision: float = 0.0,
    damping: float = 1.0,
    off_diagonal: float = 0.9,
    tolerance: float = 1e-5,
) -> Tensor:
    """The equations above.

    Args:
        block: Weights to merge, with curvatures, all diagonal or all Kronecker factors.
        prior_precision: delta_0, in the units of s H; 0 or more.
        damping: lambda, 0 or more; of no account with diagonals, as are the next two.
        off_diagonal: The factor of A's entries off its diagonal, in 0..1.
        tolerance: Residual at which conjugate gradients stop, relative to the right side; positive.

    Returns:
        theta, of the shape of the base.

    Raises:
        ValueError: An argument cannot be.
    """
    for name, value in (("prior_precision", prior_precision), ("damping", damping)):
        if not value >= 0:
            raise ValueError(f"{name} is {value}: give 0 or more.")
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}: give a positive number.")
    known = [h for h in (*block.curvatures, block.base_curvature) if h is not None]
    if all(isinstance(h, KroneckerFactors) for h in known):
        return _kronecker(block, prior_precision, damping, off_diagonal, tolerance)
    return _diagonal(block, prior_precision)


def _diagonal(block: Block, prior_precision: float) -> Tensor:
    h0 = torch.zeros_like(block.base) if block.base_curvature is None else diagonal_of(block.base_curvature)
    h0 = h0 + prior_precision
    total, push = h0.clone(), torch.zeros_like(block.base)
    for h, change in zip(block.curvatures, block.changes, strict=True):
        assert h is not None
        total += block.alpha * diagonal_of(h)
        push += (diagonal_of(h) + h0) * change
    known = total > 0
    merged = block.base + block.alpha * push / torch.where(known, total, 1)
    return torch.where(known, merged, block.base + block.alpha * sum(block.changes, torch.zeros_like(block.base)))


def _kronecker(block: Block, prior_precision: float, damping: float, off_diagonal: float, tolerance: float) -> Tensor:
    own, shared = (
        [_damped(h, damping, off_diagonal) for h in curvatures if isinstance(h, KroneckerFactors)]
        for curvatures in (block.curvatures, [block.base_curvature])
    )
    alpha, changes = block.alpha, [change.double() for change in block.changes]

    def apply(terms: list[KroneckerFactors], x: Tensor) -> Tensor:
        return sum((h @ x for h in terms), torch.zeros_like(x))

    def hbar(x: Tensor) -> Tensor:
        return alpha * apply(own, x) + apply(shared, x) + prior_precision * x

    start = alpha * sum(changes, torch.zeros_like(changes[0]))  # of task arithmetic, where nothing is known
    push = apply(shared, start) + prior_precision * start
    push = push + alpha * sum((h @ change for h, change in zip(own, changes, strict=True)), torch.zeros_like(start))
    terms = [KroneckerFactors(alpha * h.inputs, h.outputs) for h in own] + shared
    near_inverse = _near_inverse(terms, prior_precision)
    correction = _conjugate_gradients(hbar, push - hbar(start), near_inverse, tolerance)
    return block.base + (start + correction).to(block.base)


def _damped(h: KroneckerFactors, damping: float, off_diagonal: float) -> KroneckerFactors:
    g = h.outputs.double()
    g = g + damping * g.diagonal().mean() * torch.eye(len(g)).to(g)
    return KroneckerFactors(shrunk(h.inputs.double(), off_diagonal), g, h.bias)


def _near_inverse(terms: list[KroneckerFactors], prior_precision: float) -> Callable[[Tensor], Tensor]:
    """The inverse of delta_0 plus the product whose partial traces are those of the sum of the terms."""
    traces = [(h.inputs.trace(), h.outputs.trace()) for h in terms]
    a = sum(h.inputs * g for h, (_, g) in zip(terms, traces, strict=True))
    g = sum(h.outputs * a_trace for h, (a_trace, _) in zip(terms, traces, strict=True))
    whole = sum(float(a_trace * g_trace) for a_trace, g_trace in traces)
    assert isinstance(a, Tensor) and isinstance(g, Tensor)
    if whole == 0:
        return lambda x: x / prior_precision if prior_precision else x
    (a_values, a_vectors), (g_values, g_vectors) = torch.linalg.eigh(a), torch.linalg.eigh(g / whole)
    values = torch.outer(g_values.clamp_min(0), a_values.clamp_min(0)) + prior_precision
    inverse = values.clamp_min(1e-10 * float(values.max())).reciprocal()
    return lambda x: g_vectors @ (inverse * (g_vectors.T @ x @ a_vectors)) @ a_vectors.T


def _conjugate_gradients(
    apply: Callable[[Tensor], Tensor], right: Tensor, near_inverse: Callable[[Tensor], Tensor], tolerance: float
) -> Tensor:
    """The matrix x of least norm with apply(x) = right."""
    x, residual = torch.zeros_like(right), right.clone()
    z = near_inverse(residual)
    direction, old = z, (residual * z).sum()
    target = tolerance * right.norm()
    for _ in range(ITERATIONS):
        if residual.norm() <= target:
            return x
        image = apply(direction)
        step = old / (direction * image).sum()
        x = x + step * direction
        residual = residual - step * image
        z = near_inverse(residual)
        new = (residual * z).sum()
        direction, old = z + new / old * direction, new
    warnings.warn(
        f"a layer of shape {tuple(x.shape)} is merged to a residual of {float(residual.norm() / right.norm()):.0e}: "
        "give a larger damping or prior_precision.",
        stacklevel=2,
    )
    return x
