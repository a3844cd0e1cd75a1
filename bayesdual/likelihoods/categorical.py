"""One of C classes: a logit each.

A(f) = log sum_c exp f_c      mu = p = softmax(f)      link log p      Lambda = diag(p) - p p^T
r_k = sqrt(p_k) (p - e_k),  K = C:   Lambda is the mean of (p - e_k)(p - e_k)^T over classes k drawn from p
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from bayesdual.measures import ACCURACY
from bayesdual.stream import class_numbers

if TYPE_CHECKING:
    from bayesdual.measures import StreamMetric


class Categorical:
    """Classes 0, 1, and so on, by the cross-entropy; see :class:`bayesdual.likelihoods.Likelihood`."""

    name = "categorical"
    score = ACCURACY
    has_classes = True
    is_softmax = True
    temperature: float | None = 3.0

    def targets(self, given: Any, name: str) -> Tensor:
        return class_numbers(given, name)

    def outputs(self, n_classes: int) -> int:
        return n_classes

    def look_at(self, y: Tensor) -> None:
        """Nothing of them is needed."""

    def learned(self, f: Tensor, y: Tensor, examples: int, experience: int) -> None:
        """Nothing of them is needed."""

    def loss(self, f: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(f, y, reduction="none")

    def soft_loss(self, f: Tensor, old: Tensor, temperature: float) -> Tensor:
        soft = F.softmax(old / temperature, dim=1)
        return -(soft * F.log_softmax(f / temperature, dim=1)).sum(1)

    def mean(self, f: Tensor) -> Tensor:
        return f.softmax(1)

    def link(self, mean: Tensor) -> Tensor:
        return mean.log()

    def predicted(self, f: Tensor) -> Tensor:
        return f.softmax(1)

    def curvature(self, f: Tensor) -> Tensor:
        p = f.softmax(1)
        return p * (1 - p)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        return f.softmax(1) - F.one_hot(y, f.shape[1])

    def squared_lengths(self, f: Tensor) -> Tensor:
        p = f.softmax(1)
        return p * (1 - 2 * p + p.square().sum(1, keepdim=True)).clamp_min(0)

    def directions(self, f: Tensor, k: Tensor) -> Tensor:
        return f.softmax(1) - F.one_hot(k, f.shape[1])

    def factor_entries(self, f: Tensor, k: Tensor, c: Tensor) -> Tensor:
        p = f.softmax(1)
        return p.sqrt()[:, k] * ((k == c).float() - p[:, c])

    def drawn_factor(self, f: Tensor, generator: Generator) -> Tensor:
        p = f.softmax(1)
        drawn = torch.multinomial(p.cpu(), 1, generator=generator).squeeze(1).to(p.device)
        return p - F.one_hot(drawn, p.shape[1])

    def metric(self, n_experiences: int, learned: int | None = None) -> StreamMetric:
        from bayesdual.measures import StreamMetric  # which needs torchmetrics

        return StreamMetric(n_experiences, learned)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is none."""


CATEGORICAL = Categorical()
