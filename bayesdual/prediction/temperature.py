"""Temperature scaling: one number that makes logits as sure as they should be.

    p = softmax(f / T),      T the one of the least NLL on examples that were not trained on

Which class is the likeliest does not change. Examples may count as many (exemplars of a memory).

Source: Guo et al., ICML 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdual.prediction.least_nll import least_nll


def fit_temperature(f: Tensor, y: Tensor, weights: Tensor | None = None) -> float:
    """The temperature T of the equations.

    Args:
        f: Logits, shape (B, C).
        y: Labels, shape (B,).
        weights: How many examples each stands for, shape (B,); None: one.

    Raises:
        ValueError: There are no examples.
    """
    log_t = torch.zeros((), dtype=torch.float64)
    return float(least_nll(lambda: f.double() / log_t.exp(), [log_t], y, weights)[0].exp())
