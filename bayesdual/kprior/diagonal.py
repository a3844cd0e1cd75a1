"""The posterior of the past as a prior of the weights, with the diagonal precision of the optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bayesdual.kprior.terms import weight_space_loss
from bayesdual.posterior import Posterior
from bayesdual.stream import ExperienceData, Predict


class DiagonalPrior:
    """The optimizer's own posterior as the prior of the weights: P is its diagonal precision, per past example.

    IVON's Hessian starts at ``hess_init`` and forgets it slowly, so that a strength of 1 holds all weights about
    equally, and new classes are not learned; ``bayesdual.kprior.KroneckerPrior`` measures the curvature instead.

    Args:
        strength: Factor of the precision.

    Raises:
        ValueError: ``strength`` is not positive.
    """

    def __init__(self, strength: float = 0.03) -> None:
        if strength <= 0:
            raise ValueError(f"DiagonalPrior's strength is {strength}: give a positive number.")
        self.strength = strength
        self._count = 0  # past examples
        self._mean: dict[str, Tensor] = {}
        self._precision: dict[str, Tensor] = {}

    def loss(self, module: nn.Module) -> Tensor | None:
        return weight_space_loss(module, self._mean, self._precision) if self._mean else None

    def update(
        self,
        module: nn.Module,
        predict: Predict,
        data: ExperienceData,
        posterior: Posterior | None,
        device: torch.device | str,
        generator: torch.Generator,
    ) -> None:
        """Makes the posterior the anchor of the next experience.

        Raises:
            ValueError: There is no posterior.
        """
        if posterior is None:
            raise ValueError("DiagonalPrior needs a posterior: use IVON as the optimizer, or KroneckerPrior.")
        self._mean = {name: posterior.mean[name].detach().clone() for name in posterior.precision}
        self._count += len(data.y)
        scale = self.strength / self._count
        self._precision = {name: value.detach() * scale for name, value in posterior.precision.items()}

    def to(self, device: torch.device | str) -> None:
        self._mean = {name: v.to(device) for name, v in self._mean.items()}
        self._precision = {name: v.to(device) for name, v in self._precision.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count, "mean": self._mean, "precision": self._precision}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count, self._mean, self._precision = state["count"], state["mean"], state["precision"]
