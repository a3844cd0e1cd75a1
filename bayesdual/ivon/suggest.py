"""What the rule of ``rule.py`` needs to know of a problem, measured before training instead of guessed from its size.

- The **noise**. A sample whose weights have noise of variance v costs v T / 2 of loss, T the trace of the Hessian; v is
  such that this is PRICE nats at the start. T is measured as that of the Fisher matrix, the sum of squared gradients of
  examples: it is B times the variance of the gradients of batches of B. (That the Fisher matrix with the data's labels
  stands for the Hessian holds before training, when the network does not know the labels yet.)
- The **learning rate**. In a sweep of IVON's steps it rises from nothing until the loss does (Smith, "Cyclical learning
  rates for training neural networks", WACV 2017). ``turn`` is the largest at which the loss, smoothed, is nine tenths
  of its way down or more; for S steps

      lr = turn min(REACH / sqrt(S), LARGEST)

- **max_norm** is the rule's, or LONGER times the length of a batch's gradient if that is more.
- **betas**. The momentum is over fewer steps than IVON's own, MEMORY or a PARTth of all, which is what short training
  needs; the Hessian has as many steps to leave hess_init as there are, but at least 10,000 and at most 100,000.

clip_radius is left infinite: max_norm does what it is for.

The constants were read off validation accuracies; docs/ivon.md has them and what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bayesdual.ivon.optimizer import IVON
from bayesdual.ivon.rule import MAX_NORM, SHARE, Scales, settings_at
from bayesdual.random_state import kept_random_state

PRICE = 0.0004
REACH = 10.0
LARGEST = 0.45
MEMORY, PART = 5.0, 14.0  # of the momentum, 1 / (1 - beta1): so many steps, and no more than this part of all
LONGER = 2.0
BATCHES = 16  # whose gradients are compared
LOWEST, DECADES, A_DECADE = 1e-3, 5, 24  # learning rates of the sweep, and its steps in each power of ten
SMOOTH = 0.8
SLOWEST, FASTEST = 1e-5, 1e-4  # 1 - beta2

Loss = Callable[[nn.Module, Any], Tensor]


class Suggestion(TypedDict):
    """Those settings of :class:`bayesdual.IVON` that are suggested."""

    lr: float
    ess: float
    hess_init: float
    max_norm: float
    betas: tuple[float, float]


def suggest(
    model: nn.Module, loss: Loss, loader: Iterable[Any], steps: int, *, examples: int | None = None
) -> Suggestion:
    """See :meth:`bayesdual.IVON.suggest`."""
    if steps < 1:
        raise ValueError(f"steps is {steps}: give the number of steps of the training, at least 1.")
    n = number_of_examples(loader) if examples is None else examples
    if n is None:
        raise ValueError("the loader does not say how many examples there are: give examples.")
    if n < 1:
        raise ValueError(f"there are {n} examples: suggest needs some to measure.")
    params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        raise ValueError("the model has no parameter that is learned: there is nothing to suggest.")
    betas = (1 - 1 / min(max(steps / PART, 1.0), MEMORY), 1 - min(max(1 / steps, SLOWEST), FASTEST))
    with as_it_was(model, loader), torch.enable_grad():
        model.train()
        for p in params:
            p.grad = None
        batches = endless(loader)
        some = [next(batches) for _ in range(BATCHES)]
        losses = ((finite(measured(loss, model, batch)), size_of(batch)) for batch in some)
        size, length = curvature(params, losses, n)
        share = 2 * PRICE
        if not size:  # all batches are the same
            size, share = float(sum(p.numel() for p in params)), SHARE
        scales = Scales(size, 0.0, 0.0, share, max(MAX_NORM, LONGER * length))
        optimizer = IVON(params, **settings_at(scales, n, steps), betas=betas, seed=0)
        turn = sweep(optimizer, lambda: measured(loss, model, next(batches)))
    scales = scales._replace(reach=REACH * turn * math.sqrt(size), largest=LARGEST * turn)
    return {**settings_at(scales, n, steps), "betas": betas}


def curvature(params: list[nn.Parameter], losses: Iterable[tuple[Tensor, int]], examples: int) -> tuple[float, float]:
    """B times the variance of the gradients of batches of B examples, summed over the weights; and how long they are.

    Args:
        params: The parameters.
        losses: The loss of each batch, and how many examples it has.
        examples: Of how many examples the batches are drawn, without putting back.
    """
    sums = [torch.zeros_like(p, dtype=torch.float32) for p in params]
    squares = count = sizes = 0.0
    for value, size in losses:
        grads = torch.autograd.grad(value, params, allow_unused=True)
        for total, g in zip(sums, grads, strict=True):
            if g is not None:
                total += g
                squares += float(g.float().square().sum())
        count += 1
        sizes += size
    spread = squares - sum(float(total.square().sum()) for total in sums) / count
    batch = sizes / count
    trace = batch * max(spread, 0.0) / (count - 1) / max(1 - batch / examples, 1 / examples)
    return trace, math.sqrt(squares / count)


def sweep(optimizer: IVON, loss: Callable[[], Tensor]) -> float:
    """The largest learning rate at which the loss is nine tenths of its way down or more, while it rises step by step.

    Args:
        optimizer: It is stepped.
        loss: That of the next batch.

    Raises:
        ValueError: The loss does not fall at any learning rate.
    """

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value.detach()

    rates: list[float] = []
    smoothed: list[float] = []
    for i in range(DECADES * A_DECADE):
        rate = LOWEST * 10 ** (i / A_DECADE)
        for group in optimizer.param_groups:
            group["lr"] = rate
        try:
            value = float(optimizer.step(closure))
        except FloatingPointError:
            break
        rates.append(rate)
        smoothed.append(SMOOTH * smoothed[-1] + (1 - SMOOTH) * value if smoothed else value)
        way = smoothed[0] - min(smoothed)
        if smoothed[-1] > smoothed[0] + max(way, abs(smoothed[0])):
            break
    if not smoothed or smoothed[0] == min(smoothed):
        raise ValueError("the loss falls at no learning rate: look for the cause in the loss, the network or the data.")
    until = smoothed[0] - 0.9 * (smoothed[0] - min(smoothed))
    return max(rate for rate, value in zip(rates, smoothed, strict=True) if value <= until)


def measured(loss: Loss, model: nn.Module, batch: Any) -> Tensor:
    """The loss of a batch.

    Raises:
        ValueError: It is not one number that depends on the parameters.
    """
    value = loss(model, batch)
    if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"the loss gives {what}: it has to be one number, the mean over the batch, that depends on the parameters."
        )
    return value


def finite(value: Tensor) -> Tensor:
    """The loss before training.

    Raises:
        ValueError: It is infinite or not a number.
    """
    if not bool(value.isfinite()):
        raise ValueError(f"the loss of a batch is {value.item()} before training: look for the cause in the data.")
    return value


def size_of(batch: Any) -> int:
    """How many examples a batch has: as many as its first tensor has rows.

    Raises:
        ValueError: It has no tensor with rows.
    """
    for leaf in tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch):
        if isinstance(leaf, Tensor) and leaf.dim():
            return len(leaf)
    raise ValueError("a batch has no tensor with a row for each example.")


def number_of_examples(loader: Iterable[Any]) -> int | None:
    """That of the loader's dataset, if it says."""
    dataset = getattr(loader, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Batches, from the beginning again when they are through.

    Raises:
        ValueError: There are none.
    """
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ValueError("the loader gives no batch: suggest needs some to measure.")


@contextmanager
def as_it_was(model: nn.Module, loader: Iterable[Any]) -> Iterator[None]:
    """Afterwards parameters, gradients, buffers and modes of a model are as before, and so are random generators."""
    modes = [(module, module.training) for module in model.modules()]
    grads = [(p, p.grad) for p in model.parameters()]
    tensors = {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}
    generator: Any = getattr(loader, "generator", None)
    state = None if generator is None else generator.get_state()
    try:
        with kept_random_state():
            yield
    finally:
        if generator is not None and state is not None:
            generator.set_state(state)
        for module, mode in modes:
            module.training = mode
        for p, grad in grads:
            p.grad = grad
        with torch.no_grad():
            for name, t in (*model.named_parameters(), *model.named_buffers()):
                t.copy_(tensors[name])
