"""What holds the weights, or a linear network's logits, in the place of the past, from one experience to the next.

A prior of the weights is carried on, or, where bytes are counted, measured anew on what the memory stands for. Of a
linear network on vectors that are kept in bytes, the ``Residual`` is in the place of noise, and of the default prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from bayesdual.kprior.kronecker import KroneckerPrior
from bayesdual.kprior.natural import NaturalPrior
from bayesdual.kprior.residual import Residual
from bayesdual.kprior.terms import Preconditions, TakesLikelihood, WeightPrior
from bayesdual.likelihoods import Likelihood
from bayesdual.memory import LowRankSpread, Memory
from bayesdual.posterior import Posterior
from bayesdual.stream import ExperienceData, Predict
from bayesdual.tensors import bytes_in

PRIORS: dict[str, type[KroneckerPrior]] = {"kronecker": KroneckerPrior, "natural": NaturalPrior}
PriorName = Literal["kronecker", "natural"]


class Holding:
    """A prior of the weights, the residual where there is one, and which of them acts.

    Args:
        prior: A prior, the name of one, or None.
        likelihood: Of the targets.

    Attributes:
        prior: That of the weights.
        residual: What memory vectors leave out, where the network is linear in them; else None.

    Raises:
        ValueError: There is no prior of that name.
    """

    def __init__(self, prior: WeightPrior | PriorName | None, likelihood: Likelihood) -> None:
        if isinstance(prior, str) and prior not in PRIORS:
            raise ValueError(
                f'weight_prior is {prior!r}: give "kronecker", "natural", a prior of the weights, or None.'
            )
        self.prior: WeightPrior | None = PRIORS[prior]() if isinstance(prior, str) else prior
        if isinstance(self.prior, TakesLikelihood):
            self.prior.likelihood = likelihood
        self.residual: Residual | None = None
        self._fresh = deepcopy(self.prior)
        self._gives_way = prior == "kronecker"  # to a residual, unless another prior is wanted, or none

    @property
    def acting(self) -> WeightPrior | Residual | None:
        """What adds a term to the loss."""
        return self.residual if self.residual is not None and self._gives_way else self.prior

    def loss(self, module: nn.Module) -> Tensor | None:
        """Its term, per past example; None where nothing holds the weights yet."""
        return None if self.acting is None else self.acting.loss(module)

    def precondition(self, module: nn.Module, share: float) -> None:
        """Gives a step's gradients to a prior that acts on them, with the share of new examples among all."""
        if isinstance(self.prior, Preconditions):
            self.prior.precondition(module, share)

    def to(self, device: torch.device | str) -> None:
        """Moves what is held."""
        for held in (self.prior, self.residual):
            if held is not None:
                held.to(device)

    def find_residual(self, module: nn.Module, memory: Memory) -> None:
        """Measures the residual of a memory whose spread has directions, if the network is linear in its vectors."""
        vectors, spread = memory.exemplars, memory.spread
        self.residual = None
        if vectors is not None and isinstance(spread, LowRankSpread):
            self.residual = Residual.of(module, vectors, spread, memory.examples_seen)

    def update(
        self,
        module: nn.Module,
        predict: Predict,
        data: ExperienceData,
        posterior: Posterior | None,
        device: torch.device | str,
        generator: Generator,
        remembered: Callable[[], ExperienceData] | None = None,
    ) -> None:
        """Takes an experience that has been learned into the prior.

        Args:
            module: The network.
            predict: Its logits.
            data: The experience's training examples.
            posterior: Of its weights.
            device: Where the network is.
            generator: Source of randomness, on the CPU.
            remembered: Makes examples of all the past; the prior is then measured on these alone, and not carried.
        """
        if remembered is not None and self.prior is not None:
            self.prior, data = deepcopy(self._fresh), remembered()
        if self.prior is not None and self.acting is self.prior:
            self.prior.update(module, predict, data, posterior, device, generator)

    def nbytes(self) -> int | None:
        """Bytes of the prior as it is carried; None without one."""
        return None if self.prior is None else bytes_in(self.prior.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """What the next experience needs of both; tensors and plain values only."""
        return {
            "weight_prior": None if self.prior is None else self.prior.state_dict(),
            "residual": None if self.residual is None else self.residual.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], memory: Memory) -> None:
        """Restores what :meth:`state_dict` gave, beside the memory that it was kept with.

        Raises:
            ValueError: The state was made with another prior.
        """
        if self.prior is not None:
            try:
                self.prior.load_state_dict(state["weight_prior"])
            except KeyError:
                raise ValueError(
                    "the checkpoint was made with another prior of the weights: give its algorithm.weight_prior."
                ) from None
        residual, spread, self.residual = state.get("residual"), memory.spread, None
        if residual is not None and isinstance(spread, LowRankSpread):
            self.residual = Residual.from_state_dict(residual, spread)

    def refuse_other(self, state: Mapping[str, Any]) -> None:
        """Sees, before anything is restored, that there is a prior in both or in neither.

        Raises:
            ValueError: There is not.
        """
        saved = state["weight_prior"]
        if saved is None and self.prior is not None:
            raise ValueError(
                "the checkpoint was made without a prior of the weights: give algorithm.weight_prior null."
            )
        if saved is not None and self.prior is None:
            raise ValueError("the checkpoint was made with a prior of the weights: give its algorithm.weight_prior.")
