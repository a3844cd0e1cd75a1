"""Conformalised quantile regression: learned quantiles, moved by one number.

    levels a = alpha/2, 1/2, 1 - alpha/2,      loss  sum_a max(a (y - t_a), (a - 1)(y - t_a))
    s(x, y) = max(t_lo(x) - y, y - t_hi(x)),      set(x) = [t_lo(x) - q, t_hi(x) + q]

Source: Romano, Patterson & Candes, NeurIPS 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdual.conformal.quantile import check_alpha
from bayesdual.conformal.sets import Sets, intervals


class CQR:
    """Intervals between quantiles.

    Args:
        alpha: Share of errors that the quantiles are learned for.

    Raises:
        ValueError: It is not between 0 and 1.
    """

    outputs = 3

    def __init__(self, alpha: float = 0.1) -> None:
        check_alpha(alpha)
        self.levels = (alpha / 2, 0.5, 1 - alpha / 2)

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        levels, e = raw.new_tensor(self.levels), y[:, None] - raw
        return torch.maximum(levels * e, (levels - 1) * e).sum(1).mean()

    def activate(self, raw: Tensor) -> Tensor:
        return raw.sort(1).values

    def score(self, said: Tensor, y: Tensor) -> Tensor:
        return torch.maximum(said[:, 0] - y, y - said[:, 2])

    def sets(self, said: Tensor, q: float) -> Sets:
        return intervals(said[:, 0] - q, said[:, 2] + q)

    def mean(self, said: Tensor) -> Tensor:
        return said[:, 1]
