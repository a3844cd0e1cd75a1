"""IVON: an optimizer that learns a Gaussian posterior over the weights, at the price of AdamW.

Shen et al., "Variational Learning is Effective for Large Deep Networks", ICML 2024 (algorithm 1).
The posterior is N(m, diag sigma^2) with sigma^2 = 1 / (N (h + d)): m is the mean (what the parameters hold
outside a sample), h the Hessian estimate of the per-example loss, N the effective sample size (ess) and d the
weight decay. One step draws eps ~ N(0, sigma^2) and, with g the gradient at theta = m + eps, does

    momentum  u <- b1 u + (1 - b1) (mean of g)
    Hessian   hhat = N (h + d) (mean of eps * g)  "price",   or   N (mean of g^2)  "gradsq"
              h <- h + (h + d) (q + q^2 / 2),   q = (1 - b2) (hhat - h) / (h + d)
    mean      m <- m - a clip((u / (1 - b1^t) + d m) / (h + d), +-xi),   a = lr (h0 + d)  or  lr

The Hessian line is the paper's  b2 h + (1-b2) hhat + (1-b2)^2 (h-hhat)^2 / (2 (h+d))  written as one increment;
since 1 + q + q^2/2 >= 1/2, the new h + d is at least half the old: the posterior stays positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer


class IVON(Optimizer):
    """Variational optimizer with a diagonal Gaussian posterior; takes the place of AdamW (Shen et al., 2024).

    Both idioms work, here with one sample each step::

        optimizer = IVON(model.parameters(), lr=0.1, ess=len(train_set))

        with optimizer.sampled_params(train=True):      def closure():
            optimizer.zero_grad()                           optimizer.zero_grad()
            loss(model(x), y).backward()                    value = loss(model(x), y)
        optimizer.step()                                    value.backward()
                                                            return value
                                                        optimizer.step(closure)

    The second is what Lightning's automatic optimization does. The loss must be the mean over the batch. Outside a
    sample the parameters hold the mean, and so they do whenever an exception leaves one.

    Args:
        params: Parameters, or parameter groups.
        lr: Step size.
        ess: Effective sample size N, usually the number of training examples.
        hess_init: Initial Hessian h0.
        betas: Decay of the momentum and of the Hessian.
        weight_decay: d, the precision of the prior divided by ``ess``.
        mc_samples: Samples that ``step(closure)`` draws; the other idiom enters as many contexts as it wants,
            with gradients zeroed in each.
        hess_approx: "price" or "gradsq".
        clip_radius: Bound xi on each coordinate of the preconditioned direction.
        debias: Divide the momentum by 1 - b1^t.
        rescale_lr: Multiply ``lr`` by ``hess_init + weight_decay``, so that the first steps have the size ``lr``.
        seed: Seed of the noise; drawn from PyTorch's default generator if None.

    ``lr``, ``ess``, ``betas``, ``weight_decay`` and ``clip_radius`` may differ between groups and are read at every
    step. ``state[p]`` holds ``step``, ``hess`` and ``momentum``.

    Raises:
        ValueError: A hyperparameter is out of its range.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        ess: float,
        hess_init: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.99999),
        weight_decay: float = 1e-4,
        mc_samples: int = 1,
        hess_approx: Literal["price", "gradsq"] = "price",
        clip_radius: float = math.inf,
        debias: bool = True,
        rescale_lr: bool = True,
        seed: int | None = None,
    ) -> None:
        if mc_samples < 1:
            raise ValueError(f"mc_samples is {mc_samples}: give at least 1.")
        if hess_approx not in ("price", "gradsq"):
            raise ValueError(f'hess_approx is {hess_approx!r}: give "price" or "gradsq".')
        self.mc_samples = mc_samples
        self.hess_approx = hess_approx
        self._seed = int(torch.randint(2**62, ())) if seed is None else seed
        self._draws = 0
        self._samples: list[dict[Tensor, tuple[Tensor, Tensor]]] = []  # gradient and noise of each parameter
        self._sampling = False
        super().__init__(
            params,
            {
                "lr": lr,
                "ess": ess,
                "hess_init": hess_init,
                "betas": tuple(betas),
                "weight_decay": weight_decay,
                "clip_radius": clip_radius,
                "debias": debias,
                "rescale_lr": rescale_lr,
            },
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as every optimizer does, and checks its values."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name, good, what in (
            ("lr", group["lr"] >= 0, "0 or more"),
            ("ess", group["ess"] > 0, "a positive number, usually the number of training examples"),
            ("hess_init", group["hess_init"] > 0, "a positive number"),
            ("weight_decay", group["weight_decay"] >= 0, "0 or more"),
            ("clip_radius", group["clip_radius"] > 0, "a positive number"),
            ("betas", all(0 <= b < 1 for b in group["betas"]), "two numbers in [0, 1)"),
        ):
            if not good:
                self.param_groups.pop()
                raise ValueError(f"IVON's {name} is {group[name]}: give {what}.")

    @contextmanager
    def sampled_params(self, train: bool = False) -> Iterator[None]:
        """Lets the parameters hold a sample of the posterior; on every way out they hold the mean again.

        Args:
            train: The gradients that the parameters have at the end belong to the next ``step``. Otherwise the
                sample is for prediction.

        Raises:
            RuntimeError: Inside another sample.
        """
        if self._sampling:
            raise RuntimeError("the parameters already hold a sample: leave it before drawing another.")
        params = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        with torch.no_grad():
            noise = self._draw()
            mean = torch._foreach_add(params, 0.0)
            self._sampling = True
            torch._foreach_add_(params, noise)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(params, mean)
            self._sampling = False
        if train:
            pairs = zip(params, noise, strict=True)
            self._samples.append({p: (p.grad.detach().clone(), e) for p, e in pairs if p.grad is not None})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one step with the gradients of the samples drawn since the last.

        Args:
            closure: Zeroes the gradients, computes the loss and its gradients, and returns the loss; it is called in
                each of ``mc_samples`` samples. Without it, samples are drawn by ``sampled_params(train=True)``.

        Returns:
            What the last call of ``closure`` returned.
        """
        value = None
        if closure is not None:
            self._samples = []
            for _ in range(self.mc_samples):
                with torch.enable_grad(), self.sampled_params(train=True):
                    value = closure()
        samples, self._samples = self._samples, []
        for group in self.param_groups:
            params = [p for p in group["params"] if samples and all(p in sample for sample in samples)]
            if params:
                self._step_group(group, params, [[s[p] for p in params] for s in samples])
        return value

    def _step_group(
        self, group: dict[str, Any], params: list[Tensor], samples: list[list[tuple[Tensor, Tensor]]]
    ) -> None:
        """Steps the parameters of a group that have a gradient in every sample (gradient and noise of each)."""
        states = [self._state_of(p, group) for p in params]
        for state in states:
            state["step"] += 1
        hess, momentum = [s["hess"] for s in states], [s["momentum"] for s in states]
        decay, (beta1, beta2) = group["weight_decay"], group["betas"]
        gradients = [[g for g, _ in sample] for sample in samples]
        gradient = mean_of(gradients)
        precision = torch._foreach_add(hess, decay)
        if self.hess_approx == "price":
            hess_hat = mean_of(
                [torch._foreach_mul(g, [e for _, e in s]) for g, s in zip(gradients, samples, strict=True)]
            )
            torch._foreach_mul_(hess_hat, precision)
        else:
            hess_hat = mean_of([torch._foreach_mul(g, g) for g in gradients])
        torch._foreach_mul_(hess_hat, group["ess"])
        update_hessian_(hess, hess_hat, precision, beta2)
        torch._foreach_lerp_(momentum, gradient, 1 - beta1)
        debias = [1 - beta1 ** s["step"] if group["debias"] else 1.0 for s in states]
        direction = torch._foreach_div(momentum, debias)
        torch._foreach_add_(direction, params, alpha=decay)
        torch._foreach_div_(direction, torch._foreach_add(hess, decay))
        if math.isfinite(group["clip_radius"]):
            torch._foreach_clamp_min_(direction, -group["clip_radius"])
            torch._foreach_clamp_max_(direction, group["clip_radius"])
        rescale = group["hess_init"] + decay if group["rescale_lr"] else 1.0
        torch._foreach_add_(params, direction, alpha=-group["lr"] * rescale)

    def state_dict(self) -> dict[str, Any]:
        """The state of every optimizer, and ``noise``: the seed, and how many samples were drawn from it."""
        return {**super().state_dict(), "noise": {"seed": self._seed, "draws": self._draws}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave; the next sample is the one that would have come next."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "noise"})
        self._seed, self._draws = state_dict["noise"]["seed"], state_dict["noise"]["draws"]

    def _state_of(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["hess"] = torch.full_like(p, group["hess_init"], requires_grad=False)
            state["momentum"] = torch.zeros_like(p, requires_grad=False)
        return state

    def _draw(self) -> list[Tensor]:
        """Noise for all trainable parameters; a function of seed and number of draws only, so alike on all ranks."""
        noise: list[Tensor] = []
        self._draws += 1
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            params = [p for p in group["params"] if p.requires_grad]
            if not params:
                continue
            scale = torch._foreach_add([self._state_of(p, group)["hess"] for p in params], group["weight_decay"])
            torch._foreach_mul_(scale, group["ess"])
            torch._foreach_rsqrt_(scale)
            for p, s in zip(params, scale, strict=True):
                if p.device not in generators:
                    generators[p.device] = torch.Generator(p.device).manual_seed((self._seed + self._draws) % 2**63)
                s.mul_(torch.empty_like(s).normal_(generator=generators[p.device]))
            noise += scale
        return noise


def mean_of(samples: list[list[Tensor]]) -> list[Tensor]:
    """The mean over samples of lists of tensors."""
    total = torch._foreach_add(samples[0], 0.0)
    for sample in samples[1:]:
        torch._foreach_add_(total, sample)
    torch._foreach_div_(total, len(samples))
    return total


def update_hessian_(hess: list[Tensor], hess_hat: list[Tensor], precision: list[Tensor], beta2: float) -> None:
    """The Hessian line at the top of this file, in place in ``hess``; ``precision`` is h + d, ``hess_hat`` goes."""
    torch._foreach_sub_(hess_hat, hess)
    torch._foreach_div_(hess_hat, precision)
    torch._foreach_mul_(hess_hat, 1 - beta2)  # q
    torch._foreach_addcmul_(hess_hat, hess_hat, hess_hat, value=0.5)
    torch._foreach_addcmul_(hess, precision, hess_hat)
