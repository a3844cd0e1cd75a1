"""IVON: an optimizer that learns a Gaussian posterior over the weights, at the price of AdamW.

Shen et al., "Variational Learning is Effective for Large Deep Networks", ICML 2024 (algorithm 1).
The posterior is N(m, diag sigma^2) with sigma^2 = 1 / (N (h + d)): m is the mean (what the parameters hold outside a
sample), h the Hessian estimate of the per-example loss, N the effective sample size (ess) and d the weight decay. One
step draws eps ~ N(0, sigma^2) and, with g the gradient at theta = m + eps, does

    product   e = mean of eps * g           "price", by Stein's identity
              e = mean of g^2 / (h + d)     "gradsq", squared gradients;       in both, hhat = N (h + d) e
    momentum  u <- b1 u + (1 - b1) (mean of g)
    Hessian   h <- h + (h + d) (q + q^2 / 2),   q = (1 - b2) (hhat - h) / (h + d)
    mean      m <- m - a clip((u / (1 - b1^t) + d m) / (h + d), +-xi),   a = lr (h0 + d)  or  lr

The Hessian line is the paper's  b2 h + (1-b2) hhat + (1-b2)^2 (h-hhat)^2 / (2 (h+d))  written as one increment;
since 1 + q + q^2/2 >= 1/2, the new h + d is at least half the old: the posterior stays positive.

The gradient is what ``p.grad`` holds when ``step`` is called, so that clipping, unscaling, accumulation and averaging
over processes act on it as they do with any optimizer.

Beside the state, one buffer of the size of the parameters is kept: while they hold a sample it keeps the mean, and
after that eps, until ``step`` turns it into e. A sample can be made again from its key, so nothing else is kept of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesdual.ivon.blocks import Block, Layout
from bayesdual.ivon.checks import check_group, first_nonfinite, gradient_length, warn_of_sum
from bayesdual.ivon.compiled import fused
from bayesdual.ivon.distributed import average, rank_and_world_size, refuse_averaged, same_on_all
from bayesdual.ivon.equations import update_mean_, update_state_
from bayesdual.ivon.samples import RunState, draw_, restore_
from bayesdual.tensors import fits, grow


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
    :class:`bayesdual.ivon_callback.IVONCallback`). The loss must be the mean over the batch. Outside a sample the
    parameters hold the mean, and so they do whenever an exception leaves one.

    Args:
        params: Parameters, named parameters, or parameter groups; float32 or float64. Frozen parameters are left
            alone; those without a gradient keep their state.
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
        debias: Divide the momentum by 1 - b1^t.
        rescale_lr: Multiply ``lr`` by ``hess_init + weight_decay``, so that the first steps have the size ``lr``.
        noise: In several processes, "shared" gives all the same sample, and works with gradients averaged by
            anybody, such as DistributedDataParallel. "independent" gives each its own, for less variance; gradients
            must then stay local (``ddp_model.register_comm_hook(None, noop_hook)``), and ``step`` averages them.
        fused: Compile the arithmetic of a step into one kernel that goes through memory once. It takes seconds in
            the first step, and is meant for CUDA and for long runs; it needs what ``torch.compile`` needs.
        seed: Seed of the noise; drawn from PyTorch's default generator if None. Processes use that of rank 0.

    ``lr``, ``ess``, ``betas``, ``weight_decay``, ``hess_init`` and ``clip_radius`` may differ between groups and are
    read at every step. ``state[p]`` holds ``step``, ``hess`` and ``momentum``.

    Raises:
        ValueError: A hyperparameter is out of its range, or parameters are in half precision or sharded.
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
        debias: bool = True,
        rescale_lr: bool = True,
        noise: Literal["shared", "independent"] = "shared",
        fused: bool = False,
        seed: int | None = None,
    ) -> None:
        if mc_samples < 1:
            raise ValueError(f"mc_samples is {mc_samples}: give at least 1.")
        if not max_norm > 0:
            raise ValueError(f"max_norm is {max_norm}: give a positive number.")
        if hess_approx not in ("price", "gradsq"):
            raise ValueError(f'hess_approx is {hess_approx!r}: give "price" or "gradsq".')
        if noise not in ("shared", "independent"):
            raise ValueError(f'noise is {noise!r}: give "shared" or "independent".')
        self.mc_samples = mc_samples
        self.max_norm = max_norm
        self.hess_approx = hess_approx
        self.noise = noise
        self.fused = fused
        self._run = RunState(int(torch.randint(2**62, ())) if seed is None else seed)
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
        """Adds a group, as every optimizer does.

        Raises:
            ValueError: A value is out of its range, or parameters are in half precision or sharded.
        """
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def precision(self) -> dict[Tensor, Tensor]:
        """The posterior precision N (h + d) of each trainable parameter.

        Raises:
            RuntimeError: The parameters hold a sample, so they are not the mean that belongs to it.
        """
        if self._run.sampled:
            raise RuntimeError("the parameters hold a sample: leave it before asking for the posterior.")
        return {
            p: group["ess"] * (grow(self.state.get(p, {}).get("hess"), p, group["hess_init"]) + group["weight_decay"])
            for group, p in self._trainable()
        }

    # -- samples

    @contextmanager
    def sampled_params(self, train: bool = False) -> Iterator[None]:
        """Lets the parameters hold a sample of the posterior; on every way out they hold the mean again.

        Args:
            train: The gradient at this sample belongs to the next ``step``, which averages over all samples since the
                last. Zero the gradients in each sample; to accumulate them over batches, do so inside one sample.
                Otherwise the sample is for prediction, and leaves no trace in the training.

        Raises:
            RuntimeError: Inside another sample, or the gradients of one were added to those of another.
        """
        if not train:
            with self._sampled_for_prediction():
                yield
            return
        run = self._run
        if run.key is not None and not run.sampled:
            self._finish_sample()
        old = {p: p.grad for _, p in self._trainable()} if run.n_totals else {}
        self.open_sample()
        try:
            yield
        except BaseException:
            self.discard_samples()
            raise
        self.restore_mean()
        was_zeroed, run.zeroed = run.zeroed, False
        if not was_zeroed and any(g is old.get(p) for p, g in run.closed.items()):
            self.discard_samples()
            raise RuntimeError(
                "the gradients of one sample were added to those of another: call optimizer.zero_grad() in each "
                "sampled_params(train=True), or accumulate over batches inside one."
            )

    def open_sample(self) -> None:
        """Puts the sample of the coming step into the parameters, until :meth:`restore_mean` or ``step``.

        For training loops that cannot use a ``with``. The sample stays the same until ``step``, so that gradients can
        be accumulated over several openings.

        Raises:
            RuntimeError: Inside another sample.
        """
        with torch.inference_mode(False), torch.no_grad():
            self._prepare()
            if self._run.key is None:
                self._run.key = self._next_key()
            self._draw(self._run.key)

    def restore_mean(self) -> None:
        """Puts the mean back into the parameters; does nothing if they hold it."""
        run = self._run
        if run.sampled:
            with torch.inference_mode(False), torch.no_grad():
                run.layout.for_each(restore_)
                run.layout.follow()
            if run.key is not None:
                run.closed = {p: p.grad for _, p in self._trainable() if p.grad is not None}
            run.sampled = False

    def discard_samples(self) -> None:
        """Puts the mean back, and forgets the samples drawn since the last step and their gradients."""
        self.restore_mean()
        self._run.forget_samples()

    @contextmanager
    def _sampled_for_prediction(self) -> Iterator[None]:
        run = self._run
        with torch.inference_mode(False), torch.no_grad():
            self._prepare()
            run.predictions += 1
            self._draw(f"{run.seed} prediction {run.predictions - 1}")
        try:
            yield
        finally:
            self.restore_mean()
            if run.key is not None:  # its eps was overwritten
                with torch.inference_mode(False), torch.no_grad():
                    self._draw(run.key)
                self.restore_mean()

    def _draw(self, key: str) -> None:
        """Puts the sample of a key into the parameters."""
        self._run.sampled = True
        try:
            self._run.layout.for_each(lambda block: draw_(block, key))
        except BaseException:
            self.discard_samples()
            raise

    def _next_key(self) -> str:
        """The key of the next sample for training: that of all processes, or with independent noise of this one."""
        run = self._run
        rank, world_size = rank_and_world_size()
        if world_size > 1 and not run.seed_is_shared:
            run.seed = same_on_all(run.seed, run.layout.device)
        run.seed_is_shared = True
        independent = self.noise == "independent"
        draw = run.draws + (rank if independent else 0)
        run.draws += world_size if independent else 1
        return f"{run.seed} training {draw}"

    # -- the step

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Zeroes the gradients, as every optimizer does; those of a sample before are remembered."""
        if self._run.closed and not self._run.sampled:
            self._finish_sample()
        self._run.zeroed = True
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
            ValueError: A gradient is sparse.
        """
        try:
            value = None if closure is None else self._call(closure)
            self.restore_mean()
            grads, averaged = self._gradients()
            for p in grads:
                self.state[p]["step"] += 1
            self._run.layout.for_each(lambda block: self._update(block, grads, averaged), threads=not self.fused)
        finally:
            self.discard_samples()
        return value

    def _call(self, closure: Callable[[], Any]) -> Any:
        """Calls the closure in the sample at hand, or in new ones."""
        run = self._run
        closure = self._looking_at_the_loss(closure)
        if run.sampled and self.mc_samples > 1:
            raise RuntimeError(
                f"mc_samples is {self.mc_samples}, but the sample was drawn before the step, where gradients are "
                "accumulated over batches or scaled: give mc_samples=1."
            )
        if run.key is not None or run.n_totals:  # drawn before, as in Lightning's manual optimization
            with torch.enable_grad():
                return closure()
        old = {p: p.grad for _, p in self._trainable()}
        for _ in range(self.mc_samples):
            run.zeroed = False
            with torch.enable_grad(), self.sampled_params(train=True):
                value = closure()
                was_zeroed = run.zeroed
            if not was_zeroed and any(g is old[p] for p, g in run.closed.items()):
                raise RuntimeError(
                    "the closure added gradients to older ones, which were not computed in its sample: call "
                    "optimizer.zero_grad() in it; in Lightning, to accumulate batches, add the callback "
                    "bayesdual.ivon_callback.IVONCallback()."
                )
            if self.mc_samples > 1:
                self._add_to_totals(run.closed)
        return value

    def _looking_at_the_loss(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure, or in the first step one that warns of a loss that is a sum."""
        if self._run.has_seen_a_loss:
            return closure
        self._run.has_seen_a_loss = True

        def looking() -> Any:
            value = closure()
            warn_of_sum(getattr(value, "grad_fn", None))
            return value

        return looking

    def _gradients(self) -> tuple[dict[Tensor, Tensor], bool]:
        """The mean of g of each parameter that has one, and whether the buffers hold the mean of eps g already."""
        run = self._run
        if run.key is None and not run.n_totals:
            if any(p.grad is not None for _, p in self._trainable()):
                raise RuntimeError(
                    "the gradients were not computed in a sample: compute them in sampled_params(train=True) or in "
                    "step(closure); in Lightning, add the callback bayesdual.ivon_callback.IVONCallback()."
                )
            return {}, False
        grads = {}
        for place in run.layout.places:
            p, g = place.p, place.p.grad
            if g is None or not p.requires_grad:
                continue
            if place.has_moved():
                raise RuntimeError(f"{self._name(p)} was moved between the sample and the step: move it before.")
            if g.is_sparse:
                raise ValueError(f"the gradient of {self._name(p)} is sparse: make the embedding with sparse=False.")
            grads[p] = g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        spread = self.noise == "independent" and rank_and_world_size()[1] > 1
        averaged = spread or run.n_totals > 0
        if averaged:
            if run.key is not None:
                self._add_to_totals(grads)
            grads = self._average(spread)
        length = gradient_length(grads)
        if not math.isfinite(length):
            raise FloatingPointError(
                f"the gradient of {self._name(first_nonfinite(grads))} is infinite or not a number: the step was not "
                "made; lower the learning rate or look for the cause in the loss."
            )
        if length > self.max_norm:
            grads = self._shortened(grads, self.max_norm / length, averaged)
        return grads, averaged

    def _shortened(self, grads: dict[Tensor, Tensor], factor: float, averaged: bool) -> dict[Tensor, Tensor]:
        """The gradients times a factor, and what was made of them likewise."""
        if averaged:
            products = [self._run.layout.buffers[p] for p in grads]
            torch._foreach_mul_(products, factor if self.hess_approx == "price" else factor**2)
        return dict(zip(grads, torch._foreach_mul(list(grads.values()), factor), strict=True))

    @torch.no_grad()
    def _finish_sample(self) -> None:
        """Makes way for another sample; one that a gradient scaler would skip is dropped."""
        run = self._run
        if math.isfinite(gradient_length(run.closed)):
            self._add_to_totals(run.closed)
        else:
            bad = self._name(first_nonfinite(run.closed))
            run.key, run.closed = None, {}
            warnings.warn(
                f"a sample was dropped, as the gradient of {bad} was infinite or not a number; when a gradient scaler "
                "skips a step, this is as it should be.",
                stacklevel=3,
            )

    def _add_to_totals(self, grads: dict[Tensor, Tensor]) -> None:
        """Adds g and eps g (or g^2) of the last sample to the totals."""
        run = self._run
        for p, g in grads.items():
            product = g * (g if self.hess_approx == "gradsq" else run.layout.buffers[p])
            if p in run.totals:
                torch._foreach_add_(run.totals[p], [g, product])
            else:
                run.totals[p] = (g.clone(), product)
        run.n_totals += 1
        run.key, run.closed = None, {}

    def _average(self, spread: bool) -> dict[Tensor, Tensor]:
        """Turns totals into means, if ``spread`` over the processes too, and puts those of eps g into the buffers."""
        run = self._run
        pairs = run.totals
        for pair in pairs.values():
            torch._foreach_div_(pair, run.n_totals)
        if spread:
            if not run.gradients_are_local:
                refuse_averaged([g for g, _ in pairs.values()], run.layout.device)
                run.gradients_are_local = True
            pairs = average([place.p for place in run.layout.places], pairs)
        for p, (_, product) in pairs.items():
            run.layout.buffers[p].copy_(product)
        return {p: torch.empty_like(p).copy_(g) for p, (g, _) in pairs.items()}

    def _update(self, block: Block, grads: dict[Tensor, Tensor], averaged: bool) -> None:
        """Steps the pieces of a block whose parameters have a gradient; ``averaged``: the buffer holds products."""
        group = block.group
        decay, beta1 = group["weight_decay"], group["betas"][0]
        for part in block.having(grads):
            (grad, parts), (precision, precisions) = part.spare("first"), part.spare("second")
            product = part.buffer
            torch._foreach_copy_(parts, part.parts_of(grads))
            if not averaged:
                torch.mul(grad, grad if self.hess_approx == "gradsq" else product, out=product)
            if self.hess_approx == "gradsq":
                product.div_(torch.add(part.hess, decay, out=precision))
            update = fused(update_state_) if self.fused else update_state_
            update(
                part.hess,
                part.momentum,
                grad,
                product,
                precision,
                betas=group["betas"],
                ess=group["ess"],
                decay=decay,
            )
            steps = [self.state[p]["step"] for p in part.owners]
            update_mean_(
                part.params,
                part.momenta,
                precisions,
                step_size=float(group["lr"]) * (group["hess_init"] + decay if group["rescale_lr"] else 1.0),
                debias=[1 - beta1**step if group["debias"] else 1.0 for step in steps],
                decay=decay,
                clip_radius=group["clip_radius"],
            )

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """The state of every optimizer, and ``noise``: the seed, and how many samples were drawn from it.

        Raises:
            RuntimeError: The parameters hold a sample, and would be saved with it.
        """
        run = self._run
        if run.sampled:
            raise RuntimeError("the parameters hold a sample: leave it before saving.")
        noise = {"seed": run.seed, "draws": run.draws, "predictions": run.predictions}
        return {**super().state_dict(), "noise": noise}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave; the next sample is the one that would have come next.

        Raises:
            ValueError: The state is not IVON's, or its tensors do not fit the parameters; nothing is loaded.
        """
        if "noise" not in state_dict:
            raise ValueError("the state is not that of bayesdual's IVON: it has no noise; start with a new optimizer.")
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        ours = [p for group in self.param_groups for p in group["params"]]
        for i, p in zip(saved, ours, strict=False):  # torch complains of their number
            hess = state_dict["state"].get(i, {}).get("hess")
            if hess is not None and not fits(hess.shape, p):
                raise ValueError(
                    f"the state of {self._name(p)} has shape {tuple(hess.shape)}: load one that was saved with the "
                    "same model, or with a head of fewer classes."
                )
        self.discard_samples()
        super().load_state_dict(deepcopy({k: v for k, v in state_dict.items() if k != "noise"}))
        noise = state_dict["noise"]
        self._run.seed, self._run.draws = noise["seed"], noise["draws"]
        self._run.predictions = noise.get("predictions", 0)

    def __getstate__(self) -> dict[str, Any]:
        run = RunState(self._run.seed, self._run.draws, self._run.predictions)
        own = {name: getattr(self, name) for name in ("mc_samples", "max_norm", "hess_approx", "noise", "fused")}
        return {**super().__getstate__(), **own, "_run": run}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._run.reset()

    def _trainable(self) -> list[tuple[dict[str, Any], Tensor]]:
        return [(group, p) for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _name(self, p: Tensor | None) -> str:
        for number, group in enumerate(self.param_groups):
            for i, other in enumerate(group["params"]):
                if other is p:
                    name = group["param_names"][i] if "param_names" in group else f"{i} of group {number}"
                    return f"parameter {name}, of shape {tuple(p.shape)},"
        return "a parameter"

    # -- from parameters to blocks

    def _prepare(self) -> None:
        """Sees that the parameters hold the mean, and that the blocks are theirs."""
        run = self._run
        if run.sampled:
            raise RuntimeError("the parameters already hold a sample: leave it before drawing another.")
        trainable = self._trainable()
        if run.layout.is_of(trainable, self.state):
            return
        if run.key is not None or run.n_totals:
            run.forget_samples()
            warnings.warn("the samples since the last step were dropped: the parameters have changed.", stacklevel=4)
        for group in self.param_groups:
            check_group(group)
        for _, p in trainable:
            self.state[p].setdefault("step", 0)
        run.layout = Layout(trainable, self.state)
