"""Isotonic scaling: for each class an increasing function of its probability, and their sum made 1.

    g_k = the increasing function of the least squared error from 1[y = k],      p'_k = g_k(p_k) / sum_j g_j(p_j)

It needs more examples than temperature does. Where all g_k are 0, p stays as it was. Source: Zadrozny & Elkan, KDD
2002; the functions are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor


def fit_isotonic(p: Tensor, y: Tensor, weights: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """A function of class probabilities (B, C) to such as are calibrated.

    Args:
        p: Class probabilities, shape (B, C).
        y: Labels, shape (B,).
        weights: How many examples each stands for, shape (B,); None: one.

    Raises:
        ValueError: There are no examples.
    """
    if not len(y):
        raise ValueError("there are no examples to fit isotonic scaling to.")
    counts = None if weights is None else weights.double().numpy(force=True)
    steps = [
        IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(
            p[:, k].double().numpy(force=True), (y == k).double().numpy(force=True), counts
        )
        for k in range(p.shape[1])
    ]

    def calibrated(other: Tensor) -> Tensor:
        columns = [
            torch.from_numpy(g.predict(q.double().numpy(force=True))) for g, q in zip(steps, other.T, strict=True)
        ]
        raised = torch.stack(columns, 1).to(other)
        total = raised.sum(1, keepdim=True)
        return torch.where(total > 0, raised / total, other)

    return calibrated
