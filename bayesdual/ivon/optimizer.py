"""IVON as an optimizer of PyTorch; its equations are in ``equations.py``, its samples in ``samples.py``.

The gradient is what ``p.grad`` holds when ``step`` is called, so that clipping, unscaling, accumulation and averaging
over processes act on it as they do with any optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesdual.ivon.checks import (
    ADDED_BY_CLOSURE,
    OUTSIDE,
    check_common,
    check_params,
    check_settings,
    refuse_words,
    warn_of_sum,
)
from bayesdual.ivon.keys import Keys
from bayesdual.ivon.layout import trainable
from bayesdual.ivon.samples import Samples
from bayesdual.ivon.states import check_fits, copied, mean_of, noise_of, precision_of, restore_type, warn_of_others
from bayesdual.ivon.threads import for_each
from bayesdual.ivon.update import How, update_

if TYPE_CHECKING:
    from bayesdual.ivon.suggest import Suggestion

COMMON = ("mc_samples", "hess_approx", "max_norm", "max_rms", "noise")  # settings that all groups share


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

    The second is what Lightning's automatic optimization does (with accumulated gradients or fp16 it also needs
    :class:`bayesdual.ivon.IVONCallback`). The loss must be the mean over the batch. Outside a sample the
    parameters hold the mean, and so they do whenever an exception leaves one.

    Args:
        params: Parameters, named parameters, or parameter groups; of 16 (see ``rounding.py``), 32 or 64 bits. Frozen
            parameters are left alone; those without a gradient keep their state.
        lr: Step size.
        ess: Effective sample size N, usually the number of training examples.
        hess_init: Initial Hessian h0.
        betas: Decay of the momentum and of the Hessian.
        weight_decay: d, the precision of the prior divided by ``ess``.
        mc_samples: Samples that ``step(closure)`` draws; the other idiom enters as many contexts as it wants,
            with gradients zeroed in each.
        hess_approx: "price" or "gradsq".
        clip_radius: Bound xi on each coordinate of the preconditioned direction.
        max_norm: Gradients of all parameters together that are longer than this are shortened to it.
        max_rms: The gradient of a parameter whose root mean square is more than this is shortened to it. Far below what
            gradients are, every parameter moves by the same length, whatever its gradient's.
        debias: Divide the momentum by 1 - b1^t.
        rescale_lr: Multiply ``lr`` by ``hess_init + weight_decay``, so that the first steps have the size ``lr``.
        noise: In several processes, "shared" gives all the same sample, and works with gradients averaged by
            anybody, such as DistributedDataParallel. "independent" gives each its own, for less variance; gradients
            must then stay local (``ddp_model.register_comm_hook(None, noop_hook)``), and ``step`` averages them.
        fused: Compile the arithmetic of a step into one kernel that goes through memory once. It takes seconds in
            the first step, and is meant for CUDA and for long runs; it needs what ``torch.compile`` needs.
        seed: Seed of the noise; drawn from PyTorch's default generator if None. Processes use that of rank 0.

    ``lr``, ``ess``, ``betas``, ``weight_decay``, ``hess_init`` and ``clip_radius`` may differ between groups and are
    read, and checked, at every step. ``state[p]`` holds ``step``, ``hess`` and ``momentum``, and ``mean`` if p has 16
    bits.

    Raises:
        TypeError: An argument is not known, or has another name in ivon-opt.
        ValueError: A hyperparameter is out of its range, or parameters are of another type or sharded.
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
        max_norm: float = math.inf,
        max_rms: float = math.inf,
        debias: bool = True,
        rescale_lr: bool = True,
        noise: Literal["shared", "independent"] = "shared",
        fused: bool = False,
        seed: int | None = None,
        **others: object,
    ) -> None:
        refuse_words(others)
        check_common(mc_samples, max_norm, max_rms, hess_approx, noise)
        self.mc_samples = mc_samples
        self.max_norm = max_norm
        self.max_rms = max_rms
        self.hess_approx = hess_approx
        self.noise = noise
        self.fused = fused
        keys = Keys(int(torch.randint(2**62, ())) if seed is None else seed)
        self._samples = Samples(keys, squared=hess_approx == "gradsq", independent=noise == "independent")
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
                **{name: getattr(self, name) for name in COMMON},
            },
        )

    @staticmethod
    def suggest(
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        loader: Iterable[Any],
        steps: int,
        *,
        examples: int | None = None,
    ) -> Suggestion:
        """Settings to begin with, measured: ``IVON(model.parameters(), **IVON.suggest(model, loss, loader, steps))``.

        The curvature of the loss is measured on 16 batches, and the learning rate by up to 120 steps in which it rises;
        ``bayesdual/ivon/suggest.py`` has the rule. It is for training whose learning rate falls to 0.

        Args:
            model: The network before training. Afterwards it is as it was, with all random generators.
            loss: ``loss(model, batch)``, the mean over the batch.
            loader: Batches, as ``loss`` takes them.
            steps: How many steps the training has.
            examples: Number of training examples; that of ``loader.dataset`` if None.

        Returns:
            ``lr``, ``ess``, ``hess_init``, ``max_norm`` and ``betas``.

        Raises:
            ValueError: The loader is empty or does not say its size, the loss is no number or falls at no learning
                rate, or there is nothing to learn.
        """
        from bayesdual.ivon.suggest import suggest  # which makes an IVON

        return suggest(model, loss, loader, steps, examples=examples)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as every optimizer does.

        Raises:
            ValueError: A value is out of its range or belongs to all groups, or a parameter cannot be learned.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for name in COMMON:
                if (value := group.pop(name)) != self.defaults[name]:
                    raise ValueError(f"a group's {name} is {value!r}: all groups share one, so give it to IVON itself.")
            check_settings(group)
            check_params(group["params"], self.noise == "independent")
        except ValueError:
            self.param_groups.pop()
            raise

    def __repr__(self) -> str:
        first, rest = super().__repr__().split("\n", 1)
        return "\n".join([first, *(f"{name}: {getattr(self, name)}" for name in COMMON), rest])

    def precision(self) -> dict[Tensor, Tensor]:
        """The posterior precision N (h + d) of each trainable parameter.

        Raises:
            RuntimeError: The parameters hold a sample, so they are not the mean that belongs to it.
        """
        self._samples.require_mean("asking for the posterior")
        return {p: precision_of(p, self.state.get(p, {}), group) for group, p in trainable(self.param_groups)}

    def means(self) -> dict[Tensor, Tensor]:
        """The posterior mean of each trainable parameter; in float32 where the parameter has it rounded to 16 bits.

        Raises:
            RuntimeError: The parameters hold a sample.
        """
        self._samples.require_mean("asking for the posterior")
        return {p: mean_of(p, self.state.get(p, {})) for _, p in trainable(self.param_groups)}

    # -- samples

    def sampled_params(self, train: bool = False) -> AbstractContextManager[None]:
        """Lets the parameters hold a sample of the posterior; on every way out they hold the mean again.

        Args:
            train: The gradient at this sample belongs to the next ``step``, which averages over all samples since the
                last. Zero the gradients in each sample; to accumulate them over batches, do so inside one sample. The
                sample overwrites the mean for a while, so copy what you keep of it.
                Otherwise the sample is for prediction, leaves no trace in the training, and has memory of its own:
                what is kept of it (``model.state_dict()``, ``p.data``) remains that sample.

        Raises:
            RuntimeError: Inside another sample, or the gradients of one were added to those of another.
        """
        draw = self._samples.training if train else self._samples.predicting
        return draw(self.param_groups, self.state)

    def open_sample(self) -> None:
        """Puts the sample of the coming step into the parameters, until :meth:`restore_mean` or ``step``.

        For training loops that cannot use a ``with``. The sample stays the same until ``step``, so that gradients can
        be accumulated over several openings.

        Raises:
            RuntimeError: Inside another sample.
        """
        self._samples.open(self.param_groups, self.state)

    def restore_mean(self) -> None:
        """Puts the mean back into the parameters; does nothing if they hold it."""
        self._samples.close()

    def discard_samples(self) -> None:
        """Puts the mean back, and forgets the samples drawn since the last step and their gradients."""
        self._samples.discard()

    # -- the step

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Zeroes the gradients, as every optimizer does; those of a sample before are remembered."""
        self._samples.zero()
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one step with the gradients of the samples drawn since the last.

        Args:
            closure: Zeroes the gradients, computes the loss and its gradients, and returns the loss; it is called in
                each of ``mc_samples`` samples, or if a sample was drawn before, in that.

        Returns:
            What the last call of ``closure`` returned.

        Raises:
            FloatingPointError: A gradient is infinite or not a number; the step is not made.
            RuntimeError: Gradients were not computed in a sample.
            ValueError: A gradient is sparse, or a group's setting is out of its range.
        """
        samples = self._samples
        try:
            value = None if closure is None else self._call(closure)
            samples.close()
            if samples.waiting:
                for group in self.param_groups:
                    check_settings(group)
                grads, multiplied = samples.gradients(self.max_norm, self.max_rms)
                how = How(self.hess_approx == "gradsq", multiplied, self.fused)
                for p in grads:
                    self.state[p]["step"] += 1
                for_each(
                    samples.layout.blocks,
                    partial(update_, states=self.state, grads=grads, how=how),
                    threads=not self.fused,
                )
                samples.layout.gather_again()
            elif any(p.grad is not None for _, p in trainable(self.param_groups)):
                if self.state or any(group["lr"] for group in self.param_groups):
                    raise RuntimeError(OUTSIDE)
                samples.prepare(self.param_groups, self.state)  # what torch.distributed.checkpoint wants of such a step
        finally:
            samples.discard()
        return value

    def _call(self, closure: Callable[[], Any]) -> Any:
        """Calls the closure in the sample at hand, or in new ones."""
        samples = self._samples
        if samples.held and self.mc_samples > 1:
            raise RuntimeError(
                f"mc_samples is {self.mc_samples}, but the sample was drawn before the step, where gradients are "
                "accumulated over batches or scaled: give mc_samples=1."
            )
        closure = self._looking_at_the_loss(closure)
        value = None
        if samples.waiting:  # drawn before, as in Lightning's manual optimization
            with torch.enable_grad():
                return closure()
        samples.remember(p for _, p in trainable(self.param_groups))
        for _ in range(self.mc_samples):
            with torch.enable_grad(), samples.training(self.param_groups, self.state, ADDED_BY_CLOSURE):
                value = closure()
            if self.mc_samples > 1:
                samples.add(samples.closed)
        return value

    def _looking_at_the_loss(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure, or in the first step one that warns of a loss that is a sum."""
        if self._samples.has_seen_a_loss:
            return closure
        self._samples.has_seen_a_loss = True

        def looking() -> Any:
            value = closure()
            warn_of_sum(getattr(value, "grad_fn", None))
            return value

        return looking

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """The state of every optimizer; its groups also hold what they share.

        That is ``mc_samples``, ``hess_approx``, ``max_norm``, ``max_rms`` and ``noise``, and of the noise its
        ``seed``, and how many samples were drawn from it (``draws``, ``predictions``).

        Raises:
            RuntimeError: The parameters hold a sample, and would be saved with it.
        """
        self._samples.require_mean("saving")
        state = super().state_dict()
        shared = {name: getattr(self, name) for name in COMMON} | asdict(self._samples.keys)
        return state | {"param_groups": [group | shared for group in state["param_groups"]]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave; the next sample is the one that would have come next.

        What groups share stays as it was given to this optimizer, after a warning if it was saved with another value.

        Raises:
            ValueError: The state is not IVON's, or its tensors do not fit the parameters; nothing is loaded.
        """
        shared, noise = state_dict["param_groups"][0], noise_of(state_dict)
        check_fits(state_dict, self.param_groups)
        self.discard_samples()
        ours_alone = {*COMMON, *asdict(self._samples.keys)}
        groups = [{k: v for k, v in group.items() if k not in ours_alone} for group in state_dict["param_groups"]]
        super().load_state_dict({"state": copied(state_dict["state"]), "param_groups": deepcopy(groups)})
        restore_type(self.state, state_dict, self.param_groups)
        warn_of_others(shared, {name: getattr(self, name) for name in COMMON})
        keys = self._samples.keys
        keys.seed, keys.draws, keys.predictions = noise["seed"], noise["draws"], noise.get("predictions", 0)

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in (*COMMON, "fused", "_samples")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("max_rms", math.inf)  # which pickles of version 0.2 lack
        self._samples.reset()
