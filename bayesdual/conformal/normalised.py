"""Normalised conformal prediction: widths in proportion to a learned scale.

    loss  (y - m)^2 / (2 v) + log(v) / 2,      s(x, y) = |y - m(x)| / sqrt(v(x)),      set(x) = m(x) -+ q sqrt(v(x))

Sources: Papadopoulos et al., 2008 and Lei et al., JASA 2018 (score); Nix & Weigend, 1994 (loss).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual.conformal.sets import Sets, intervals

LEAST_SCALE = 0.01  # of the targets' standard deviation


class Normalised:
    """Intervals around the mean, as wide as the noise is said to be."""

    outputs = 2

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        mean, scale = self.activate(raw).unbind(1)
        return F.gaussian_nll_loss(mean, y, scale**2)

    def activate(self, raw: Tensor) -> Tensor:
        return torch.stack([raw[:, 0], F.softplus(raw[:, 1]) + LEAST_SCALE], 1)

    def score(self, said: Tensor, y: Tensor) -> Tensor:
        return (y - said[:, 0]).abs() / said[:, 1]

    def sets(self, said: Tensor, q: float) -> Sets:
        return intervals(said[:, 0] - q * said[:, 1], said[:, 0] + q * said[:, 1])

    def mean(self, said: Tensor) -> Tensor:
        return said[:, 0]
