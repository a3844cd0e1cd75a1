"""LAC: sets of the labels that are likely enough.

    s(x, y) = 1 - p(y | x),      set(x) = {y : s(x, y) <= q}

The smallest sets on average, which may be empty. Source: Sadinle, Lei & Wasserman, JASA 2019.
"""

from __future__ import annotations

from torch import Tensor


def lac_scores(p: Tensor) -> Tensor:
    """Nonconformity of each label.

    Args:
        p: Class probabilities, shape (B, C).

    Returns:
        Shape (B, C).
    """
    return 1 - p
