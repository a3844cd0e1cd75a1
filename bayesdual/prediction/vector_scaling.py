"""Vector scaling: a factor and an offset for each class.

    p = softmax(a * f + b),      a, b (C,) of the least NLL, with a penalty that holds what few examples say

The penalty, (|a - 1|^2 + |b|^2) / 2 in all, is a Gaussian prior around the logits as they are. Source: Guo et al., ICML
2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdual.prediction.least_nll import least_nll


def fit_vector_scaling(f: Tensor, y: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Factors a and offsets b, each of shape (C,).

    Args:
        f: Logits, shape (B, C).
        y: Labels, shape (B,).
        weights: How many examples each stands for, shape (B,); None: one.

    Raises:
        ValueError: There are no examples.
    """
    a, b = (make(f.shape[1], dtype=torch.float64) for make in (torch.ones, torch.zeros))
    prior = lambda: ((a - 1).square().sum() + b.square().sum()) / (2 * len(y))  # noqa: E731
    a, b = least_nll(lambda: a * f.double() + b, [a, b], y, weights, prior)
    return a.to(f), b.to(f)
