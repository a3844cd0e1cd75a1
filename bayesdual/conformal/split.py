"""Split conformal prediction: one width for all.

    loss  (y - m)^2,      s(x, y) = |y - m(x)|,      set(x) = [m(x) - q, m(x) + q]

Source: Papadopoulos et al., ECML 2002; Lei et al., JASA 2018.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bayesdual.conformal.sets import Sets, intervals


class Split:
    """Intervals of one width around the mean."""

    outputs = 1

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(raw[:, 0], y)

    def activate(self, raw: Tensor) -> Tensor:
        return raw

    def score(self, said: Tensor, y: Tensor) -> Tensor:
        return (y - said[:, 0]).abs()

    def sets(self, said: Tensor, q: float) -> Sets:
        return intervals(said[:, 0] - q, said[:, 0] + q)

    def mean(self, said: Tensor) -> Tensor:
        return said[:, 0]
