"""The finite-sample quantile, by which scores become sets that cover.

Nonconformity scores s_1 .. s_n of calibration examples (large: y is far from what is predicted), exchangeable with
those to come, and a share alpha of errors that is allowed:

    q = the ceil((1 - alpha)(n + 1))-th smallest score,      set(x) = {y : s(x, y) <= q}
    P(y in set(x)) >= 1 - alpha

over the draw of the calibration examples and of the new one. Examples that stand for w_i each, with a new one that
stands for their mean w:

    q = the smallest s with  sum of w_i over s_i <= s   >=   (1 - alpha)(sum of w_i + w)

Sources: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005; Tibshirani et al., NeurIPS 2019
(weights).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-9  # (1 - .7)(9 + 1) is 3.0000000000000004 in floating point, and means 3


def check_alpha(alpha: float) -> None:
    """Sees that a share of errors is one.

    Raises:
        ValueError: It is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: it is the share of errors that is allowed, above 0 and below 1.")


def calibration_examples_needed(alpha: float) -> int:
    """The smallest n whose quantile is one of its scores: (1 - alpha)(n + 1) <= n."""
    check_alpha(alpha)
    return math.ceil(1 / alpha - 1 - ROUNDING)


def conformal_quantile(scores: Tensor, alpha: float, weights: Tensor | None = None) -> float:
    """The q of the equations above.

    Args:
        scores: Nonconformity scores of the calibration examples, shape (n,).
        alpha: Share of errors that is allowed, between 0 and 1.
        weights: How many examples each stands for, shape (n,), positive; None: all the same.

    Raises:
        ValueError: ``alpha`` is out of its range, there are too few scores for it, a score is not a number, or a weight
            is not positive.
    """
    needed = calibration_examples_needed(alpha)
    n = len(scores)
    if n < needed:
        raise ValueError(f"there are {n} calibration examples, but alpha {alpha:g} needs at least {needed}.")
    if bool(scores.isnan().any()):
        raise ValueError(f"{int(scores.isnan().sum())} of {n} calibration scores are not numbers.")
    if weights is None:
        return float(scores.double().sort().values[math.ceil((1 - alpha) * (n + 1) - ROUNDING) - 1])
    if weights.shape != scores.shape or not bool((weights > 0).all()):
        raise ValueError("weights of calibration examples are positive, one for each example.")
    order = scores.argsort()
    until = weights[order].double().cumsum(0)
    least = (1 - alpha) * float(until[-1]) * (1 + 1 / n) * (1 - ROUNDING)
    place = int(torch.searchsorted(until, torch.tensor(least, dtype=torch.float64, device=until.device)))
    return float(scores[order[min(place, n - 1)]])
