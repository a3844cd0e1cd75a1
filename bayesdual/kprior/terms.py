"""K-prior: what stands in for the loss of past data once only a memory of it is left.

Khan & Swaroop, "Knowledge-Adaptation Priors", NeurIPS 2021. With M the memory, w_z the number of past examples that
z stands for, f the logits now and f_old those of the network before, and T a temperature,

    past loss  ~  sum_{z in M} w_z T^2 CE(softmax(f_old(z)/T), softmax(f(z)/T))      function space, of classes
                + 1/2 (theta - theta_old)^T P (theta - theta_old)                    weight space

Of other targets, the soft loss of their likelihood stands in place of CE (``bayesdual/likelihoods/likelihood.py``). For
a generalised linear model with all data in memory and T = 1, the gradient is that of the past loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.posterior import Posterior
from bayesdual.stream import ExperienceData, Predict
from bayesdual.tensors import corner


class WeightPrior(Protocol):
    """The posterior of the past as a prior of the weights: ``bayesdual.kprior.KroneckerPrior`` is one."""

    def loss(self, module: nn.Module) -> Tensor | None:
        """The weight-space term per past example; None before an experience has been learned."""

    def update(
        self,
        module: nn.Module,
        predict: Predict,
        data: ExperienceData,
        posterior: Posterior | None,
        device: torch.device | str,
        generator: torch.Generator,
    ) -> None:
        """Takes in the experience just learned."""

    def to(self, device: torch.device | str) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Preconditions(Protocol):
    """A prior of the weights that acts on gradients too: ``bayesdual.kprior.NaturalPrior`` is one."""

    def precondition(self, module: nn.Module, share: float) -> None:
        """Changes the gradients of a step in place, before the optimizer sees them; ``share`` is N / (N + N')."""


@runtime_checkable
class TakesLikelihood(Protocol):
    """A prior that measures curvature: the algorithm gives it its likelihood before anything is learned."""

    likelihood: Likelihood


def function_space_loss(
    logits: Tensor,
    old_logits: Tensor,
    weights: Tensor,
    temperature: float = 1.0,
    likelihood: Likelihood = CATEGORICAL,
) -> Tensor:
    """Weighted mean of the loss with soft targets: the first term above, for one unit of weight.

    Args:
        logits: Logits now (or other outputs), shape (B, C).
        old_logits: Logits of the network before, shape (B, C') with C' <= C: classes that are new since are left out.
        weights: Weights, shape (B,), of any positive sum.
        temperature: T; T^2 keeps the gradient's scale.
        likelihood: Of the targets.
    """
    losses = likelihood.soft_loss(logits[:, : old_logits.shape[1]], old_logits, temperature)
    return temperature**2 * (losses * weights).sum() / weights.sum()


def weight_space_loss(module: nn.Module, mean: Mapping[str, Tensor], precision: Mapping[str, Tensor]) -> Tensor:
    """Half the squared distance of the weights to the old ones, in units of the posterior: the second term above.

    Args:
        module: The network.
        mean: Old weights by parameter name; a parameter that has grown since is held where it was.
        precision: Posterior precision by parameter name, of the shapes of ``mean``.
    """
    total = torch.zeros(())
    for name, p in module.named_parameters():
        if name in mean:
            moved = corner(p, mean[name].shape) - mean[name]
            total = total + (precision[name] * moved.square()).sum()
    return 0.5 * total
