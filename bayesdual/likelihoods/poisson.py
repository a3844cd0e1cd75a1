"""A count: 0, 1, 2, and so on; f is the logarithm of its mean, in units of the first experience's mean count m.

A(f) = m exp f      mu = m exp f      link log (mu / m)      lambda = m exp f
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bayesdual.likelihoods.gaussian import score_named
from bayesdual.likelihoods.one_output import OneOutput, numbers

LARGEST = 80.0  # of f: exp f stays finite in float32


class Poisson(OneOutput):
    """Counts; see the equations above.

    Args:
        score: What forgetting and transfer are measured in: ``rmse``, ``mae``, ``nll`` or ``r2``.

    Raises:
        ValueError: There is no such score.
    """

    name = "poisson"

    def __init__(self, score: str = "rmse") -> None:
        self.score = score_named(score)
        self._rate: float | None = None  # m

    @property
    def rate(self) -> float:
        """m; 1 before the first experience is seen."""
        return 1.0 if self._rate is None else self._rate

    def look_at(self, y: Tensor) -> None:
        if self._rate is None:
            self._rate = float(y.double().mean()) or 1.0

    def targets(self, given: Any, name: str) -> Tensor:
        y = numbers(given, name)
        wrong = (y < 0) | (y != y.round())
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"the target of example {row} (counted from 0) of {name} is {y[row].item():g}, which is no count: the "
                "poisson likelihood takes 0, 1, 2, and so on; the gaussian takes any number."
            )
        return y

    def partition(self, f: Tensor) -> Tensor:
        return self.rate * f.clamp_max(LARGEST).exp()

    def mean(self, f: Tensor) -> Tensor:
        return self.rate * f.clamp_max(LARGEST).exp()

    def link(self, mean: Tensor) -> Tensor:
        return (mean / self.rate).log()

    def variance(self, f: Tensor) -> Tensor:
        return self.rate * f.clamp_max(LARGEST).exp()

    def nll(self, predicted: Tensor, y: Tensor) -> Tensor:
        mean, y = predicted.squeeze(1).double().clamp_min(1e-38), y.double()
        return mean - y * mean.log() + torch.lgamma(y + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"rate": self._rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._rate = state["rate"]
