"""How networks of conformal methods are trained: on folds, and kept as they were best on those that they do not see.

Network i of F learns from all folds but fold i. All are kept as they were after the epoch of the least mean loss of
fold i by network i (an epoch for each fold would fit its few examples). What they say of the folds that they did not
see chooses between methods, by the mean length of the sets

    {y : s(x, y) <= q},      q the finite-sample quantile of the scores of all folds;

the mean of what they give makes the prediction (of densities a geometric mean, as narrow as its parts). IVON's networks
speak by samples of their posterior. All take their steps together, as one network with F times the parameters: that is
several times as fast.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import Optimizer

from bayesdual.conformal.method import Method
from bayesdual.conformal.quantile import conformal_quantile
from bayesdual.conformal.sets import lengths
from bayesdual.ivon import IVON, ivon_settings
from bayesdual.schedule import lower_learning_rate

OptimizerName = Literal["ivon", "adamw"]
Weights = dict[str, Tensor]
ADAMW_LR = 3e-3


class Training(NamedTuple):
    """How networks are trained.

    Attributes:
        optimizer: ``ivon``, by the rule of ``bayesdual.ivon.ivon_settings``, or ``adamw``.
        epochs: Over which the learning rate falls to 0.
        batch_size: Examples of a step.
        lr_factor: Multiplies the learning rate: IVON's by the rule, AdamW's 0.003.
        samples: Of IVON's posterior.
    """

    optimizer: OptimizerName = "ivon"
    epochs: int = 60
    batch_size: int = 64
    lr_factor: float = 1.0
    samples: int = 8


class Fitted(NamedTuple):
    """Networks of all folds, and how a method did on these.

    Attributes:
        network: Their shape, in eval mode.
        weights: For each fold those that it speaks with: one set, or several samples of a posterior.
        length: Mean length of sets on the folds that were not seen, in the targets' unit.
    """

    network: nn.Module
    weights: Sequence[Sequence[Weights]]
    length: float

    def say(self, method: Method, x: Tensor) -> Tensor:
        """What a method makes of inputs (B, ...), on average over the networks: (B, outputs), in float64."""
        return method.activate(_raw(self.network, [w for weights in self.weights for w in weights], x))


def fit_folds(
    make_network: Callable[[], nn.Module],
    method: Method,
    x: Tensor,
    y: Tensor,
    folds: Sequence[Tensor],
    alpha: float,
    training: Training,
    generator: Generator,
) -> Fitted:
    """Trains a network for each fold.

    Args:
        make_network: Makes one with as many outputs as the method has.
        method: What it learns.
        x: Inputs, shape (n, ...).
        y: Targets, shape (n,).
        folds: Positions of examples, at least two lots of them, of the same size but for one.
        alpha: Share of errors at which lengths are measured; as near to it as n examples allow.
        training: How.
        generator: Source of randomness, on the CPU.
    """
    networks = [make_network() for _ in folds]
    network = deepcopy(networks[0]).double().eval()
    weights = train(networks, method, x, y, folds, training, generator)
    said = torch.cat([method.activate(_raw(network, w, x[fold])) for w, fold in zip(weights, folds, strict=True)])
    targets = torch.cat([y[fold] for fold in folds])
    q = conformal_quantile(method.score(said, targets), max(alpha, 1 / (len(y) + 1)))
    return Fitted(network, weights, statistics.fmean(lengths(method.sets(said, q))))


def train(
    networks: Sequence[nn.Module],
    method: Method,
    x: Tensor,
    y: Tensor,
    folds: Sequence[Tensor],
    training: Training,
    generator: Generator,
) -> list[list[Weights]]:
    """Trains networks of one shape together; arguments are those of :func:`fit_folds`.

    Returns:
        For each what it speaks with, in float64: parameters and buffers by name.
    """
    rest = [torch.cat([other for j, other in enumerate(folds) if j != i]) for i in range(len(folds))]
    n, unseen_n = min(map(len, rest)), min(map(len, folds))
    unseen = torch.stack([fold[:unseen_n] for fold in folds])
    params, buffers = stack_module_state(list(networks))
    shape = deepcopy(networks[0])
    forward = vmap(lambda p, b, z: functional_call(shape, (p, b), (z,)), randomness="different")
    steps, step = training.epochs * math.ceil(n / training.batch_size), 0
    optimizer = _optimizer(params, len(folds), training, n, steps)
    least, best = math.inf, _now(params, buffers, optimizer)
    for _ in range(training.epochs):
        orders = torch.stack([rows[torch.randperm(len(rows), generator=generator)[:n]] for rows in rest])
        shape.train()
        for rows in orders.split(training.batch_size, 1):
            lower_learning_rate(optimizer, 0.0, step / steps)
            with optimizer.sampled_params(train=True) if isinstance(optimizer, IVON) else nullcontext():
                optimizer.zero_grad()
                raw = forward(params, buffers, x[rows])
                (len(folds) * method.loss(raw.flatten(0, 1), y[rows].flatten())).backward()  # the sum of their means
            optimizer.step()
            step += 1
        shape.eval()
        with torch.no_grad():
            raw = forward(params, buffers, x[unseen])
            loss = float(method.loss(raw.flatten(0, 1), y[unseen].flatten()))
        if loss < least:
            least, best = loss, _now(params, buffers, optimizer)
    return [_speaking(best, i, training.samples, generator) for i in range(len(folds))]


@torch.no_grad()
def _raw(network: nn.Module, weights: Sequence[Weights], x: Tensor) -> Tensor:
    """The mean of what a network gives with several weights, in float64."""
    return torch.stack([functional_call(network, w, (x.double(),)) for w in weights]).mean(0)


def _optimizer(params: Weights, networks: int, training: Training, examples: int, steps: int) -> Optimizer:
    if training.optimizer == "adamw":
        return torch.optim.AdamW(params.values(), lr=training.lr_factor * ADAMW_LR)
    settings = ivon_settings(sum(p.numel() for p in params.values()) // networks, examples, steps)
    settings["lr"] *= training.lr_factor
    settings["max_norm"] *= math.sqrt(networks)  # of all of them together
    return IVON(params.values(), **settings, betas=(0.9, 0.9999))


def _now(params: Weights, buffers: Weights, optimizer: Optimizer) -> dict[str, tuple[Tensor, Tensor]]:
    """Copies of all parameters and buffers, with standard deviations, by name."""
    precision = optimizer.precision() if isinstance(optimizer, IVON) else {}
    exact = {name: (value.clone(), torch.zeros_like(value)) for name, value in buffers.items()}
    return exact | {
        name: (p.detach().clone(), precision[p].rsqrt() if p in precision else torch.zeros_like(p))
        for name, p in params.items()
    }


def _speaking(best: dict[str, tuple[Tensor, Tensor]], i: int, samples: int, generator: Generator) -> list[Weights]:
    """Samples of the weights of network i; one if they are exact."""
    exact = all(not bool(std.any()) for _, std in best.values())
    return [
        {
            name: (mean[i] + std[i] * torch.randn(mean[i].shape, generator=generator)).double()
            if bool(std.any())
            else (mean[i].double() if mean.is_floating_point() else mean[i])
            for name, (mean, std) in best.items()
        }
        for _ in range(1 if exact else samples)
    ]
