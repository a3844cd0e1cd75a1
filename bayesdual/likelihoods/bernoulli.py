"""One of two classes, by one output: f is the logarithm of the odds of class 1.

A(f) = log(1 + exp f)      mu = p = sigmoid(f)      link log p / (1 - p)      lambda = p (1 - p)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual.likelihoods.one_output import OneOutput
from bayesdual.measures import ACCURACY
from bayesdual.stream import class_numbers

if TYPE_CHECKING:
    from bayesdual.measures import StreamMetric


class Bernoulli(OneOutput):
    """Classes 0 and 1, which are predicted and measured as two classes; see the equations above."""

    name = "bernoulli"
    score = ACCURACY
    has_classes = True
    temperature: float | None = 3.0  # as that of classes

    def targets(self, given: Any, name: str) -> Tensor:
        y = class_numbers(given, name)
        if stray := sorted(set(y.unique().tolist()) - {0, 1}):
            raise ValueError(
                f"{name} has the label {stray[0]}, and the bernoulli likelihood tells 0 from 1: give likelihood "
                "categorical, and a network with an output for each class."
            )
        return y

    def partition(self, f: Tensor) -> Tensor:
        return F.softplus(f)

    def mean(self, f: Tensor) -> Tensor:
        return f.sigmoid()

    def link(self, mean: Tensor) -> Tensor:
        return mean.logit()

    def variance(self, f: Tensor) -> Tensor:
        return f.sigmoid() * (-f).sigmoid()

    def predicted(self, f: Tensor) -> Tensor:
        return torch.cat([(-f).sigmoid(), f.sigmoid()], 1)

    def nll(self, predicted: Tensor, y: Tensor) -> Tensor:
        return -predicted.gather(1, y[:, None]).squeeze(1).double().clamp_min(1e-38).log()

    def metric(self, n_experiences: int, learned: int | None = None) -> StreamMetric:
        from bayesdual.measures import StreamMetric  # which needs torchmetrics

        return StreamMetric(n_experiences, learned)
