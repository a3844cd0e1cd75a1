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
while they hold the mean it keeps the sample, until ``step`` turns it into e. All work is done block by block: on a CPU
a block stays in the cache, and threads share the blocks (one ``torch.randn`` would take as long as all the rest).
"""

from __future__ import annotations

import math
import os
import random
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Barrier
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

Tensors = list[Tensor]

CPU_BLOCK = 1 << 16  # elements: few enough for the cache, and enough to outweigh the calls
DEVICE_BLOCK = 1 << 24
FEW_BLOCKS = 16  # so many are done before other threads have woken up

# -- the equations, in place on lists of tensors


def perturb_(params: Tensors, noise: Tensors, hess: Tensors, ess: float, decay: float) -> None:
    """Turns m into theta = m + eps; ``noise`` is standard normal."""
    deviation = torch._foreach_add(hess, decay)
    torch._foreach_sqrt_(deviation)
    torch._foreach_addcdiv_(params, noise, deviation, value=ess**-0.5)


def update_(
    mean: Tensors,
    hess: Tensors,
    momentum: Tensors,
    grad: Tensors,
    product: Tensors,
    *,
    step_size: float,
    debias: list[float],
    betas: tuple[float, float],
    ess: float,
    decay: float,
    clip_radius: float,
) -> None:
    """Does the last three lines at the top of this file; ``product`` holds e and is used up.

    Args:
        mean, hess, momentum, grad, product: m, h, u, the mean of g, and e.
        step_size: a.
        debias: 1 - b1^t for each tensor.
        betas, ess, decay, clip_radius: b1 and b2, N, d, xi.
    """
    beta1, beta2 = betas
    rate = (1 - beta2) * ess
    torch._foreach_lerp_(momentum, grad, 1 - beta1)
    precision = torch._foreach_add(hess, decay)  # h + d
    torch._foreach_addcdiv_(product, hess, precision, value=-1 / ess)  # q / rate
    torch._foreach_addcmul_(product, product, product, value=0.5 * rate)  # (q + q^2 / 2) / rate
    torch._foreach_addcmul_(hess, precision, product, value=rate)
    torch._foreach_addcmul_(precision, precision, product, value=rate)  # that of the new h
    if math.isinf(clip_radius):
        if decay:
            torch._foreach_addcdiv_(mean, mean, precision, value=-step_size * decay)
        torch._foreach_addcdiv_(mean, momentum, precision, [-step_size / x for x in debias])
    else:
        direction = torch._foreach_div(momentum, debias)
        torch._foreach_add_(direction, mean, alpha=decay)
        torch._foreach_div_(direction, precision)
        torch._foreach_clamp_min_(direction, -clip_radius)
        torch._foreach_clamp_max_(direction, clip_radius)
        torch._foreach_add_(mean, direction, alpha=-step_size)


# -- blocks


@dataclass
class _Place:
    """Where a parameter and its state were when the blocks were cut."""

    group: dict[str, Any]
    p: Tensor
    value: Tensor
    hess: Tensor
    momentum: Tensor

    def has_moved(self) -> bool:
        return self.p.data_ptr() != self.value.data_ptr() or self.p.shape != self.value.shape

    def is_current(self, state: dict[str, Any]) -> bool:
        return not self.has_moved() and state.get("hess") is self.hess and state.get("momentum") is self.momentum


@dataclass
class _Block:
    """Pieces of parameters of one group, and the same pieces of what belongs to them."""

    number: int
    group: dict[str, Any]
    size: int = 0
    owners: list[tuple[Tensor, slice | None]] = field(default_factory=list)  # parameter, and which part (None: all)
    params: Tensors = field(default_factory=list)
    kept: Tensors = field(default_factory=list)  # the mean if ``sampled``, else the sample
    hess: Tensors = field(default_factory=list)
    momentum: Tensors = field(default_factory=list)
    sampled: bool = False

    def add(self, p: Tensor, part: slice | None, kept: Tensor, state: dict[str, Any]) -> None:
        self.owners.append((p, part))
        self.params.append(_piece(p.detach(), part))
        self.kept.append(_piece(kept, part))
        self.hess.append(_piece(state["hess"], part))
        self.momentum.append(_piece(state["momentum"], part))
        self.size += self.params[-1].numel()

    def draw(self, key: int) -> None:
        """Keeps the mean, and puts a new sample into the parameters."""
        torch._foreach_copy_(self.kept, self.params)
        self.sampled = True
        self.perturb(key)

    def perturb(self, key: int) -> None:
        noise = _standard_normal(self.params, self.size, key + self.number)
        perturb_(self.params, noise, self.hess, self.group["ess"], self.group["weight_decay"])

    def restore_mean(self) -> None:
        """Swaps mean and sample; if it is interrupted, a second call still finds the mean."""
        if self.sampled:
            sample = [p.clone() for p in self.params]
            torch._foreach_copy_(self.params, self.kept)
            self.sampled = False
            torch._foreach_copy_(self.kept, sample)

    def restore_sample(self) -> None:
        """Swaps mean and sample back."""
        sample = [k.clone() for k in self.kept]
        torch._foreach_copy_(self.kept, self.params)
        self.sampled = True
        torch._foreach_copy_(self.params, sample)


@dataclass
class _Run:
    """What changes in an optimizer beside its groups and state: one object, which Lightning's copies share."""

    seed: int
    draws: int = 0  # samples drawn for training,
    predictions: int = 0  # and for prediction

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets what can be made again."""
        self.layout: list[_Place] = []
        self.blocks: list[_Block] = []
        self.kept: dict[Tensor, Tensor] = {}  # the buffer, whole
        self.seed_is_shared = False
        self.gradients_are_local = False
        self.zeroed = False  # the gradients, since the last sample
        self.forget_samples()

    def forget_samples(self) -> None:
        self.sampled = False  # the parameters hold a sample
        self.pending = False  # a sample was drawn whose gradient is not used yet
        self.closed: dict[Tensor, Tensor] = {}  # the gradients when the parameters last held it
        self.totals: dict[Tensor, tuple[Tensor, Tensor]] = {}  # sums of g and of eps g, over the samples before it
        self.n_totals = 0


# -- the optimizer


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
        debias: Divide the momentum by 1 - b1^t.
        rescale_lr: Multiply ``lr`` by ``hess_init + weight_decay``, so that the first steps have the size ``lr``.
        noise: In several processes, "shared" gives all the same sample, and works with gradients averaged by
            anybody, such as DistributedDataParallel. "independent" gives each its own, for less variance; gradients
            must then stay local (``ddp_model.register_comm_hook(None, noop_hook)``), and ``step`` averages them.
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
        debias: bool = True,
        rescale_lr: bool = True,
        noise: Literal["shared", "independent"] = "shared",
        seed: int | None = None,
    ) -> None:
        if mc_samples < 1:
            raise ValueError(f"mc_samples is {mc_samples}: give at least 1.")
        if hess_approx not in ("price", "gradsq"):
            raise ValueError(f'hess_approx is {hess_approx!r}: give "price" or "gradsq".')
        if noise not in ("shared", "independent"):
            raise ValueError(f'noise is {noise!r}: give "shared" or "independent".')
        self.mc_samples = mc_samples
        self.hess_approx = hess_approx
        self.noise = noise
        self._run = _Run(int(torch.randint(2**62, ())) if seed is None else seed)
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
            _check_group(self.param_groups[-1])
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
        if run.pending and not run.sampled:
            self._add_to_totals(run.closed)
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
        self._refuse_to_nest()
        with torch.inference_mode(False), torch.no_grad():
            self._prepare()
            self._run.sampled = True
            try:
                if self._run.pending:
                    self._for_blocks(_Block.restore_sample)
                else:
                    key = self._next_key()
                    self._for_blocks(lambda block: block.draw(key))
            except BaseException:
                self.discard_samples()
                raise
        self._run.pending = True

    def restore_mean(self) -> None:
        """Puts the mean back into the parameters; does nothing if they hold it."""
        if self._run.sampled:
            with torch.inference_mode(False), torch.no_grad():
                self._for_blocks(_Block.restore_mean)
                self._follow_moves()
            self._run.closed = {p: p.grad for _, p in self._trainable() if p.grad is not None}
            self._run.sampled = False

    def discard_samples(self) -> None:
        """Puts the mean back, and forgets the samples drawn since the last step and their gradients."""
        self.restore_mean()
        self._run.forget_samples()

    @contextmanager
    def _sampled_for_prediction(self) -> Iterator[None]:
        self._refuse_to_nest()
        run = self._run
        with torch.inference_mode(False), torch.no_grad():
            self._prepare()
            key = _key(run.seed, "prediction", run.predictions)
            run.predictions += 1
            blocks = run.blocks
            means = [[p.clone() for p in block.params] for block in blocks]
        run.sampled = True
        try:
            with torch.inference_mode(False), torch.no_grad():
                self._for_blocks(lambda block: block.perturb(key))
            yield
        finally:
            with torch.inference_mode(False), torch.no_grad():
                for block, mean in zip(blocks, means, strict=True):
                    torch._foreach_copy_(block.params, mean)
                self._follow_moves()
            run.sampled = False

    def _follow_moves(self) -> None:
        """Puts the mean into parameters that have got new storage while they held a sample."""
        for place in self._run.layout:
            if place.has_moved():
                place.p.copy_(place.value)

    def _refuse_to_nest(self) -> None:
        if self._run.sampled:
            raise RuntimeError("the parameters already hold a sample: leave it before drawing another.")

    def _next_key(self) -> int:
        """The key of the next sample for training: that of all processes, or with independent noise of this one."""
        run = self._run
        rank, world_size = _rank_and_world_size()
        if world_size > 1 and not run.seed_is_shared:
            seed = torch.tensor(run.seed, device=run.blocks[0].params[0].device)
            dist.broadcast(seed, 0)
            run.seed = int(seed)
        run.seed_is_shared = True
        independent = self.noise == "independent"
        draw = run.draws + (rank if independent else 0)
        run.draws += world_size if independent else 1
        return _key(run.seed, "training", draw)

    # -- the step

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Zeroes the gradients, as every optimizer does; those of a sample before are remembered."""
        if self._run.closed and not self._run.sampled:
            self._add_to_totals(self._run.closed)
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
            grads, products_are_kept = self._gradients()
            for p in grads:
                self.state[p]["step"] += 1
            self._for_blocks(lambda block: self._update(block, grads, products_are_kept))
        finally:
            self.discard_samples()
        return value

    def _call(self, closure: Callable[[], Any]) -> Any:
        """Calls the closure in the sample at hand, or in new ones."""
        run = self._run
        if run.sampled and self.mc_samples > 1:
            raise RuntimeError(
                f"mc_samples is {self.mc_samples}, but the sample was drawn before the step, where gradients are "
                "accumulated over batches or scaled: give mc_samples=1."
            )
        if run.pending or run.n_totals:  # drawn before, as in Lightning's manual optimization
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
                self._add_to_totals(run.closed, drop_nonfinite=False)  # the step refuses them
        return value

    def _gradients(self) -> tuple[dict[Tensor, Tensor], bool]:
        """The mean of g of each parameter that has one, and whether the mean of eps g is in the buffer already."""
        run = self._run
        grads = {}
        for place in run.layout:
            p, g = place.p, place.p.grad
            if g is None or not p.requires_grad:
                continue
            if place.has_moved():
                raise RuntimeError(f"{self._name(p)} was moved between the sample and the step: move it before.")
            if g.is_sparse:
                raise ValueError(f"the gradient of {self._name(p)} is sparse: make the embedding with sparse=False.")
            grads[p] = g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        if not run.pending and not run.n_totals:
            if any(p.grad is not None for _, p in self._trainable()):
                raise RuntimeError(
                    "the gradients were not computed in a sample: compute them in sampled_params(train=True) or in "
                    "step(closure); in Lightning, add the callback bayesdual.ivon_callback.IVONCallback()."
                )
            return {}, False
        spread = self.noise == "independent" and _rank_and_world_size()[1] > 1
        averaged = spread or run.n_totals > 0
        if averaged:
            if run.pending:
                self._add_to_totals(grads, drop_nonfinite=False)
            grads = self._average(spread)
        if (bad := self._find_nonfinite(grads)) is not None:
            raise FloatingPointError(
                f"the gradient of {self._name(bad)} is infinite or not a number: the step was not made; lower the "
                "learning rate or look for the cause in the loss."
            )
        return grads, averaged

    def _find_nonfinite(self, grads: dict[Tensor, Tensor]) -> Tensor | None:
        """The first parameter whose gradient is infinite or not a number."""
        sums: dict[Any, Tensors] = {}

        def add(block: _Block) -> None:
            pieces = [_piece(grads[p], part) for p, part in block.owners if p in grads]
            sums.setdefault(_kind(block.params[0]), []).extend([piece.sum() for piece in pieces])

        self._for_blocks(add)
        if all(math.isfinite(float(torch.stack(kind).sum())) for kind in sums.values() if kind):
            return None  # one look at each device; as a sum can overflow where no gradient is infinite, look again
        return next((p for p, g in grads.items() if not bool(g.isfinite().all())), None)

    def _add_to_totals(self, grads: dict[Tensor, Tensor], drop_nonfinite: bool = True) -> None:
        """Adds g and eps g of the pending sample to the totals, so that another can be drawn."""
        run = self._run
        run.pending, run.closed = False, {}
        with torch.no_grad():
            if drop_nonfinite and (bad := self._find_nonfinite(grads)) is not None:
                warnings.warn(
                    f"a sample was dropped, as the gradient of {self._name(bad)} was infinite or not a number; when a "
                    "gradient scaler skips a step, this is as it should be.",
                    stacklevel=3,
                )
                return
            for p, g in grads.items():
                product = g * g if self.hess_approx == "gradsq" else (run.kept[p] - p.detach()).mul_(g)
                if p in run.totals:
                    torch._foreach_add_(run.totals[p], [g, product])
                else:
                    run.totals[p] = (g.clone(), product)
        run.n_totals += 1

    def _average(self, spread: bool) -> dict[Tensor, Tensor]:
        """Turns totals into means, if ``spread`` over the processes too, and puts those of eps g into the buffer."""
        run = self._run
        for total in run.totals.values():
            torch._foreach_div_(total, run.n_totals)
        if spread:
            self._average_over_processes()
        for p, (_, product) in run.totals.items():
            run.kept[p].copy_(product)
        return {p: torch.empty_like(p).copy_(g) for p, (g, _) in run.totals.items()}

    def _average_over_processes(self) -> None:
        """One reduction of g, eps g, and how many processes have a gradient, for all parameters."""
        totals = self._run.totals
        params = [place.p for place in self._run.layout]
        self._refuse_averaged_gradients()
        zeros = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in params if p not in totals}
        count = torch.tensor([float(p in totals) for p in params], device=params[0].device)
        tensors = [t for p in params for t in (totals.get(p) or zeros[p])]
        flat = torch.cat([count, *(t.flatten() for t in tensors)])
        dist.all_reduce(flat)
        flat /= _rank_and_world_size()[1]
        parts = flat[len(params) :].split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        for p, n in zip(params, flat[: len(params)].tolist(), strict=True):
            if n and p in zeros:
                totals[p] = zeros[p]

    def _refuse_averaged_gradients(self) -> None:
        """At the first step, checks that nobody has averaged the gradients before."""
        if self._run.gradients_are_local:
            return
        device = self._run.blocks[0].params[0].device
        mine = torch.zeros((), dtype=torch.float64, device=device)
        for g, _ in self._run.totals.values():
            mine += g.double().abs().sum().to(device)
        everyones = [torch.empty_like(mine) for _ in range(_rank_and_world_size()[1])]
        dist.all_gather(everyones, mine)
        if float(mine) and len({float(total) for total in everyones}) == 1:
            raise RuntimeError(
                'noise is "independent", but all processes have the same gradients: keep DistributedDataParallel from '
                "averaging them, by ddp_model.register_comm_hook(None, noop_hook) of "
                "torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks."
            )
        self._run.gradients_are_local = True

    def _update(self, block: _Block, grads: dict[Tensor, Tensor], products_are_kept: bool) -> None:
        """Steps the pieces of a block whose parameters have a gradient."""
        pieces = zip(block.owners, block.params, block.kept, block.hess, block.momentum, strict=True)
        having = [(p, part, *rest) for (p, part), *rest in pieces if p in grads]
        if not having:
            return
        owners, parts, params, product, hess, momentum = map(list, zip(*having, strict=True))
        grad = [_piece(grads[p], part) for p, part in zip(owners, parts, strict=True)]
        group = block.group
        decay, betas = group["weight_decay"], group["betas"]
        if not products_are_kept:
            if self.hess_approx == "gradsq":
                torch._foreach_copy_(product, grad)
            else:
                torch._foreach_sub_(product, params)  # eps, as the parameters have rounded it
            torch._foreach_mul_(product, grad)
        if self.hess_approx == "gradsq":
            torch._foreach_div_(product, torch._foreach_add(hess, decay))
        update_(
            params,
            hess,
            momentum,
            grad,
            product,
            step_size=float(group["lr"]) * (group["hess_init"] + decay if group["rescale_lr"] else 1.0),
            debias=[1 - betas[0] ** self.state[p]["step"] if group["debias"] else 1.0 for p in owners],
            betas=betas,
            ess=group["ess"],
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
            if hess is not None and not _fits(hess, p):
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
        run = _Run(self._run.seed, self._run.draws, self._run.predictions)
        own = {"mc_samples": self.mc_samples, "hess_approx": self.hess_approx, "noise": self.noise, "_run": run}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._run.reset()

    def _trainable(self) -> list[tuple[dict[str, Any], Tensor]]:
        return [(group, p) for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _name(self, p: Tensor) -> str:
        for number, group in enumerate(self.param_groups):
            for i, other in enumerate(group["params"]):
                if other is p:
                    name = group["param_names"][i] if "param_names" in group else f"{i} of group {number}"
                    return f"parameter {name}, of shape {tuple(p.shape)},"
        return "a parameter"

    # -- from parameters to blocks

    def _prepare(self) -> None:
        """Cuts the trainable parameters into blocks, if they or their state are not where they were."""
        run = self._run
        trainable = self._trainable()
        if len(trainable) == len(run.layout) and all(
            place.p is p and place.group is group and place.is_current(self.state[p])
            for (group, p), place in zip(trainable, run.layout, strict=True)
        ):
            return
        if run.pending or run.n_totals:
            run.forget_samples()
            warnings.warn("the samples since the last step were dropped: the parameters have changed.", stacklevel=4)
        for group in self.param_groups:
            _check_group(group)
        run.kept = {p: torch.empty_like(p.detach()) for _, p in trainable}
        run.layout, run.blocks = [], []
        open_blocks: dict[Any, _Block] = {}
        for group, p in trainable:
            state = self._state_of(p, group)
            run.layout.append(_Place(group, p, p.detach(), state["hess"], state["momentum"]))
            room = CPU_BLOCK if p.device.type == "cpu" else DEVICE_BLOCK
            whole = p.numel() <= room or not _is_dense(p)
            for start in range(0, 1 if whole else p.numel(), room):
                part = None if whole else slice(start, min(start + room, p.numel()))
                size = p.numel() if part is None else part.stop - part.start
                kind = (id(group), p.device, p.dtype)
                if kind not in open_blocks or open_blocks[kind].size + size > room:
                    open_blocks[kind] = _Block(len(run.blocks), group)
                    run.blocks.append(open_blocks[kind])
                open_blocks[kind].add(p, part, run.kept[p], state)

    def _state_of(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter, made at its prior, or fitted to the parameter where this has changed."""
        state, like = self.state[p], self._run.kept[p]
        state.setdefault("step", 0)
        for name, fill in (("hess", group["hess_init"]), ("momentum", 0.0)):
            value = state.get(name)
            if value is None or any(f(value) != f(like) for f in (Tensor.size, Tensor.stride, _kind)):
                state[name] = grow(value, like, fill)
        return state

    def _for_blocks(self, work: Callable[[_Block], None]) -> None:
        """Does the work on every block; on a CPU threads share them."""
        blocks = self._run.blocks
        threads = min(torch.get_num_threads(), len(blocks))
        if threads < 2 or len(blocks) < FEW_BLOCKS or blocks[0].params[0].device.type != "cpu":
            for block in blocks:
                work(block)
            return
        queue = iter(blocks)  # hands each block to one thread

        def drain() -> None:
            with torch.no_grad():  # the mode is the thread's own
                for block in queue:
                    work(block)

        pool = _pool(os.getpid(), torch.get_num_threads())
        tasks = [pool.submit(drain) for _ in range(threads)]
        try:
            wait(tasks)
        except BaseException:  # interrupted: nobody may work on the parameters after this
            wait(tasks)
            raise
        for task in tasks:
            task.result()


def grow(old: Tensor | None, like: Tensor, fill: float) -> Tensor:
    """Returns a tensor as ``like``, with ``old`` in the corner where all indices are small and ``fill`` elsewhere.

    Raises:
        ValueError: ``old`` is larger than ``like``.
    """
    new = torch.full_like(like, fill, requires_grad=False)
    if old is not None:
        if not _fits(old, like):
            raise ValueError(
                f"IVON's state of shape {tuple(old.shape)} does not fit a parameter of shape {tuple(like.shape)}: a "
                "parameter can grow, but not shrink."
            )
        new[tuple(slice(n) for n in old.shape)] = old.to(new)
    return new


def _fits(old: Tensor, like: Tensor) -> bool:
    return old.dim() == like.dim() and all(a <= b for a, b in zip(old.shape, like.shape, strict=True))


def _kind(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    return tensor.device, tensor.dtype


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one stretch of memory, in whatever order (``channels_last`` does)."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _piece(tensor: Tensor, part: slice | None) -> Tensor:
    """A part of a dense tensor, in the order of memory."""
    return tensor if part is None else tensor.as_strided((tensor.numel(),), (1,))[part]


def _key(seed: int, purpose: str, draw: int) -> int:
    """Where the noise of a draw begins; the keys of its blocks follow one another."""
    return random.Random(f"{seed} {purpose} {draw}").getrandbits(62)


def _standard_normal(like: Tensors, size: int, key: int) -> Tensors:
    """Draws that depend on the key (and the device) only, as pieces shaped as those of ``like``."""
    first = like[0]
    noise = torch.empty(size, dtype=first.dtype, device=first.device)
    noise.normal_(generator=torch.Generator(first.device).manual_seed(key))
    if len(like) == 1:
        return [noise.view_as(first)]
    return [n.view_as(t) for n, t in zip(noise.split([t.numel() for t in like]), like, strict=True)]


def _rank_and_world_size() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@lru_cache(maxsize=4)
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """A pool of this process (threads do not survive a fork), whose threads do not share out an operation again."""
    started = Barrier(threads)

    def start() -> None:
        torch.get_num_threads()  # lets PyTorch set up the thread before it is told otherwise
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="ivon")
    wait([pool.submit(start) for _ in range(threads)])
    torch.set_num_threads(threads)  # what other threads begin with
    return pool


def _check_group(group: dict[str, Any]) -> None:
    for name, good, what in (
        ("lr", group["lr"] >= 0, "0 or more"),
        ("ess", group["ess"] > 0, "a positive number, usually the number of training examples"),
        ("hess_init", group["hess_init"] > 0, "a positive number"),
        ("weight_decay", group["weight_decay"] >= 0, "0 or more"),
        ("clip_radius", group["clip_radius"] > 0, "a positive number"),
        ("betas", all(0 <= b < 1 for b in group["betas"]), "two numbers in [0, 1)"),
    ):
        if not good:
            raise ValueError(f"IVON's {name} is {group[name]}: give {what}.")
    for p in group["params"]:
        if p.requires_grad and p.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"a parameter is {p.dtype}, which is too coarse for IVON's Hessian: keep the parameters in float32 "
                "and use mixed precision (torch.autocast)."
            )
        if hasattr(p, "device_mesh") or getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False):
            raise ValueError("a parameter is sharded (FSDP or DTensor), which IVON cannot sample: use DDP.")
