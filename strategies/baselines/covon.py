"""CoVON, continual IVON: the posterior of the past as the prior inside IVON's step, by a diagonal and without a memory.

The posterior is N(m, 1 / (ess (h + delta))), the prior N(m0, 1 / s0) with delta = s0 / ess. With g the gradient at a
sample theta, a step is

    theta = m + eps,      eps ~ N(0, 1 / (ess (h + delta)))
    f = ess (h + delta) eps g
    u <- b1 u + (1 - b1) g
    h <- b2 h + (1 - b2) f + (1 - b2)^2 (h - f)^2 / (2 (h + delta))
    m <- m - lr clip((u / (1 - b1^t) + delta (m - m0)) / (h + delta), +-xi)

and where an experience ends the posterior becomes the prior (variational continual learning, Nguyen et al., ICLR 2018)

    s0 <- s0 + ess h,     m0 <- m,     h <- hess_init,     u <- 0

The paper's gammas, by which both may be weakened, are 1 here. The effective sample size ess is far above the number N
of examples, a thousand times by default, so that h is learned: at ess = N the noise of so many weights drowns it. The
learning rate falls to 0 over each experience, as ours does.

Source: Paul et al., arXiv 2606.24007, 2026, whose settings are searched for each benchmark; from the equations alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.optim import Optimizer

from bayesdual.schedule import lower_learning_rate


class CoVON(Optimizer):
    """The steps above.

    Args:
        params: Parameters.
        lr: Step size.
        hess_init: h at the beginning of each experience.
        prior_precision: delta of the first experience; its m0 is 0.
        beta1: b1.
        beta2: b2.
        clip_radius: xi.

    Attributes:
        ess: Set by :meth:`begin_experience`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        hess_init: float = 0.01,
        prior_precision: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        clip_radius: float = math.inf,
    ) -> None:
        super().__init__(params, {"lr": lr})
        self.hess_init, self.prior_precision = hess_init, prior_precision
        self.beta1, self.beta2, self.clip_radius = beta1, beta2, clip_radius
        self.ess = 1.0
        self._steps = 0
        self._sampled = False

    def begin_experience(self, ess: float) -> None:
        """Begins an experience: h, u and the number of steps start again; the prior stays."""
        self.ess, self._steps = ess, 0
        for p in self._params():
            state = self.state[p]
            state.setdefault("prior_mean", torch.zeros_like(p))
            state.setdefault("prior", torch.full_like(p, self.prior_precision * ess))  # s0
            state["hess"], state["momentum"] = torch.full_like(p, self.hess_init), torch.zeros_like(p)

    @torch.no_grad()
    def sample(self) -> None:
        """Puts a sample into the parameters, until :meth:`restore`."""
        for p in self._params():
            state = self.state[p]
            state["mean"] = p.clone()
            state["noise"] = torch.randn_like(p) * (self.ess * state["hess"] + state["prior"]).rsqrt()
            p.add_(state["noise"])
        self._sampled = True

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the mean back; does nothing where the parameters hold it."""
        if self._sampled:
            for p in self._params():
                p.copy_(self.state[p].pop("mean"))
            self._sampled = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Makes a step with the gradients at the sample drawn last."""
        self._steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                h, u, delta = state["hess"], state["momentum"], state["prior"] / self.ess
                f = self.ess * (h + delta) * state["noise"] * p.grad
                change = (1 - self.beta2) * (f - h)
                h.add_(change + 0.5 * change.square() / (h + delta))
                u.lerp_(p.grad, 1 - self.beta1)
                pull = u / (1 - self.beta1**self._steps) + delta * (p - state["prior_mean"])
                p.sub_((pull / (h + delta)).clamp_(-self.clip_radius, self.clip_radius), alpha=group["lr"])

    @torch.no_grad()
    def end_experience(self) -> None:
        """Makes the posterior the prior of the next experience."""
        for p in self._params():
            state = self.state[p]
            state["prior_mean"] = p.clone()
            state["prior"] = state["prior"] + self.ess * state["hess"]

    def prior_precisions(self) -> list[Tensor]:
        """s0 of each parameter."""
        return [self.state[p]["prior"] for p in self._params()]

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]


class CoVONPlugin(SupervisedPlugin):
    """Calls :class:`CoVON` where Avalanche's training loop is about to sample, and where an experience ends.

    Args:
        optimizer: The strategy's.
        ess_factor: ess as a multiple of the number of examples.
    """

    def __init__(self, optimizer: CoVON, ess_factor: float) -> None:
        super().__init__()
        self.optimizer, self._ess_factor = optimizer, ess_factor

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.optimizer.begin_experience(self._ess_factor * len(strategy.adapted_dataset))

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        clock, steps = strategy.clock, len(strategy.dataloader)
        done = (clock.train_exp_epochs + clock.train_epoch_iterations / steps) / strategy.train_epochs
        lower_learning_rate(self.optimizer, 0.0, done)

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.optimizer.sample()

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        self.optimizer.restore()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.optimizer.end_experience()
