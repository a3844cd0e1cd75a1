"""Conformal prediction by regression as classification: a density over bins, and where it is high.

A network gives p = softmax over K grid points g_k of the target (``bins.py`` makes a density f of p). Losses:

    published   sum_k p_k |y - g_k|^(1/2)  -  tau H(p),      H(p) = - sum_k p_k log p_k,   tau = .2
    two-hot     - sum_k h_k(y) log p_k                        (h the hat functions)
    blurred     - sum_k b_k(y) log p_k,      b_k(y) ~ w_k exp(-(y - g_k)^2 / (2 s^2))

Score and set:

    s(x, y) = - f(y | x), 0 outside of the grid,      set(x) = {y : f(y | x) >= -q}

with q the finite-sample quantile: a union of intervals, which follows several modes.

The publication interpolates p_k where this has p_k / w_k: with equal bins the same up to a constant but at the two
ends, and with bins by quantile only the latter is a density. Blurred labels let neighbouring bins learn from each other
where there are few examples; they are wider by s, which the quantile makes up for.

Sources: Guha et al., ICLR 2024 (published loss, score; their code has no finite-sample quantile and can return the
complement of a set); Imani & White, ICML 2018 (blurred labels).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from bayesdual.conformal.bins import interpolate, two_hot, widths
from bayesdual.conformal.sets import Sets, superlevel_sets

TAU = 0.2
BLUR = 0.3

BinLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits (B, K), targets (B,) and grid (K,) to the mean loss."""


def published_loss(logits: Tensor, y: Tensor, grid: Tensor, tau: float = TAU) -> Tensor:
    """Expected root of the distance less tau times the entropy; see the module.

    Args:
        logits: Shape (B, K).
        y: Targets, shape (B,), in units of their standard deviation.
        grid: Shape (K,), in the same units.
        tau: Weight of the entropy: how much wide distributions are favoured.
    """
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    distance = (y[:, None] - grid).abs().sqrt()
    entropy = -(p * log_p).sum(1)
    return ((p * distance).sum(1) - tau * entropy).mean()


def two_hot_loss(logits: Tensor, y: Tensor, grid: Tensor) -> Tensor:
    """Cross-entropy with the hat functions at y. Arguments are those of :func:`published_loss`."""
    return F.cross_entropy(logits, two_hot(grid, y))


def blurred_loss(logits: Tensor, y: Tensor, grid: Tensor, blur: float = BLUR) -> Tensor:
    """Cross-entropy with a bell around y.

    Args:
        logits: As in :func:`published_loss`, as are the next two.
        y: Targets.
        grid: Points.
        blur: s, its standard deviation.
    """
    bell = -((y[:, None] - grid) ** 2) / (2 * blur**2) + widths(grid).log()
    return F.cross_entropy(logits, bell.softmax(1))


LOSSES: dict[str, BinLoss] = {"published": published_loss, "two-hot": two_hot_loss, "blurred": blurred_loss}


class RegressionAsClassification:
    """Sets where a density over bins is high.

    Args:
        grid: Points, shape (K,), ascending.
        loss: What the network is trained with.
    """

    def __init__(self, grid: Tensor, loss: BinLoss = two_hot_loss) -> None:
        self.grid = grid
        self.outputs = len(grid)
        self._loss = loss

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        return self._loss(raw, y, self.grid.to(raw))

    def activate(self, raw: Tensor) -> Tensor:
        grid = self.grid.to(raw)
        return raw.softmax(-1) / widths(grid)

    def score(self, said: Tensor, y: Tensor) -> Tensor:
        return -interpolate(self.grid.to(said), said, y.to(said))

    def sets(self, said: Tensor, q: float) -> Sets:
        return superlevel_sets(self.grid.to(said), said, -q)

    def mean(self, said: Tensor) -> Tensor:
        grid = self.grid.to(said)
        return (said * widths(grid)) @ grid
