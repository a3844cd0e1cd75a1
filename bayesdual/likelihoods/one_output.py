"""Likelihoods of a network with one output: from A, A', A'' and the inverse of A' follow all the others.

Lambda = lambda = A''(f) / phi has the one factor r_1 = sqrt(lambda), so that nothing has to be drawn.

What is learned by is the loss over 4 lambda(0): its curvature at f = 0, where a network begins, is 1/4, as that of two
classes is, for which IVON's rule and the priors of weights were made. Squared errors in their own units would take
steps that no rule could foresee.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from bayesdual.measures import RMSE, Score

if TYPE_CHECKING:
    from bayesdual.measures import NumberMetric, StreamMetric


class OneOutput(ABC):
    """A likelihood of targets y (B,) given outputs f (B, 1); those of one's own need a name and six functions of f.

    See :class:`bayesdual.likelihoods.Likelihood` for what is public here.
    """

    name: str
    score: Score = RMSE
    has_classes = False
    is_softmax = False
    temperature: float | None = 1.0

    @abstractmethod
    def targets(self, given: Any, name: str) -> Tensor: ...

    @abstractmethod
    def partition(self, f: Tensor) -> Tensor:
        """A(f), of the shape of f."""

    @abstractmethod
    def mean(self, f: Tensor) -> Tensor: ...

    @abstractmethod
    def link(self, mean: Tensor) -> Tensor: ...

    @abstractmethod
    def variance(self, f: Tensor) -> Tensor:
        """A''(f), of the shape of f."""

    @abstractmethod
    def nll(self, predicted: Tensor, y: Tensor) -> Tensor:
        """-log p(y) in nats, constants included, of what ``predicted`` gave, shape (B, ...), and y; shape (B,)."""

    # -- of an experience

    def outputs(self, n_classes: int) -> int:
        return 1

    def look_at(self, y: Tensor) -> None:  # noqa: B027  # nothing to do is right
        """Nothing of them is needed."""

    def learned(self, f: Tensor, y: Tensor, examples: int, experience: int) -> None:  # noqa: B027  # nothing to do is right
        """Nothing of them is needed."""

    @property
    def unit(self) -> float:
        """What losses are divided by: 4 lambda(0)."""
        return 4 * float(self.curvature(torch.zeros(1, 1)))

    # -- of examples

    def natural(self, y: Tensor) -> Tensor:
        """Targets in the units of mu(f): as they are, of the shape (B, 1)."""
        return y[:, None]

    def loss(self, f: Tensor, y: Tensor) -> Tensor:
        check_outputs(f)
        return (self.partition(f) - self.natural(y).to(f) * f).squeeze(1) / self.unit

    def soft_loss(self, f: Tensor, old: Tensor, temperature: float) -> Tensor:
        f, soft = f / temperature, self.mean(old / temperature)
        return (self.partition(f) - soft * f).squeeze(1) / self.unit

    def predicted(self, f: Tensor) -> Tensor:
        return self.mean(f)

    def curvature(self, f: Tensor) -> Tensor:
        return self.variance(f)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        return self.mean(f) - self.natural(y)

    # -- factors of the curvature

    def squared_lengths(self, f: Tensor) -> Tensor:
        return self.curvature(f)

    def directions(self, f: Tensor, k: Tensor) -> Tensor:
        return torch.ones_like(f)

    def factor_entries(self, f: Tensor, k: Tensor, c: Tensor) -> Tensor:
        return self.curvature(f).sqrt().expand(-1, len(k))

    def drawn_factor(self, f: Tensor, generator: Generator) -> Tensor:
        return (self.curvature(f) / self.unit).sqrt()

    # -- what is measured and kept

    def metric(self, n_experiences: int, learned: int | None = None) -> StreamMetric | NumberMetric:
        from bayesdual.measures import NumberMetric  # which needs torchmetrics

        return NumberMetric(self.nll, self.score, n_experiences, learned)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027  # nothing to do is right
        """There is none."""


def check_outputs(f: Tensor) -> None:
    """Refuses outputs of a network that has not one.

    Raises:
        ValueError: It has more.
    """
    if f.dim() != 2 or f.shape[1] != 1:
        raise ValueError(f"the network gives outputs of shape {tuple(f.shape)}: give it one output, shape (B, 1).")


def numbers(given: Any, name: str) -> Tensor:
    """Targets that are numbers, shape (N,), float32.

    Raises:
        ValueError: They are text, several for an example, or not finite.
    """
    try:
        y = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"the targets of {name} are not one number for each example: give numbers.") from None
    if y.dim() != 1:
        raise ValueError(
            f"the targets of {name} have shape {('N', *y.shape[1:])}: give one number for each example, shape (N,); "
            "several are not supported.".replace("'", "")
        )
    if y.is_complex() or not bool(y.double().isfinite().all()):
        row = 0 if y.is_complex() else int((~y.double().isfinite()).nonzero()[0])
        raise ValueError(
            f"the target of example {row} (counted from 0) of {name} is {y[row].item()}: give a finite number, or "
            "leave the example out."
        )
    return y.to(torch.float32)
