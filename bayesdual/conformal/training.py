"""How networks of conformal methods are trained: on folds, each kept as it was best on the fold that it does not see.

Network i of F learns from all folds but fold i, and is kept as it was after the epoch of the least loss on fold i. What
the networks say of the folds that they did not see chooses between methods, by the mean length of the sets

    {y : s(x, y) <= q},      q the finite-sample quantile of the scores of all folds;

what they say on average is the prediction. IVON's networks speak by samples of their posterior.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from bayesdual.conformal.method import Method
from bayesdual.conformal.quantile import conformal_quantile
from bayesdual.conformal.sets import lengths
from bayesdual.ivon import IVON, ivon_settings
from bayesdual.models import evaluating
from bayesdual.posterior import Posterior
from bayesdual.schedule import lower_learning_rate

OptimizerName = Literal["ivon", "adamw"]
ADAMW_LR = 3e-3


class Training(NamedTuple):
    """How a network is trained.

    Attributes:
        optimizer: ``ivon``, by the rule of ``bayesdual.ivon.ivon_settings``, or ``adamw``.
        epochs: Over which the learning rate falls to 0.
        batch_size: Examples of a step.
        lr_factor: Multiplies the learning rate: IVON's by the rule, AdamW's 0.003.
        samples: Of IVON's posterior.
    """

    optimizer: OptimizerName = "ivon"
    epochs: int = 60
    batch_size: int = 32
    lr_factor: float = 1.0
    samples: int = 8


class Speaker(NamedTuple):
    """A network in float64, and the weights it speaks with: one set of them, or several samples of a posterior."""

    network: nn.Module
    weights: Sequence[dict[str, Tensor]]

    @torch.no_grad()
    def say(self, method: Method, x: Tensor) -> Tensor:
        """What a method makes of inputs (B, ...), on average: (B, outputs), in float64."""
        with evaluating(self.network):
            raw = [functional_call(self.network, weights, (x.double(),)) for weights in self.weights]
        return torch.stack([method.activate(r) for r in raw]).mean(0)


class Fitted(NamedTuple):
    """Networks of all folds, and how a method did on these.

    Attributes:
        speakers: One for each fold.
        length: Mean length of sets on the folds that were not seen, in the targets' unit.
    """

    speakers: list[Speaker]
    length: float

    def say(self, method: Method, x: Tensor) -> Tensor:
        """What a method makes of inputs (B, ...), on average over the networks: (B, outputs)."""
        return torch.stack([speaker.say(method, x) for speaker in self.speakers]).mean(0)


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
        folds: Positions of examples, at least two lots of them.
        alpha: Share of errors at which lengths are measured; as near to it as n examples allow.
        training: How.
        generator: Source of randomness, on the CPU.
    """
    speakers, said = [], []
    for i, fold in enumerate(folds):
        rest = torch.cat([other for j, other in enumerate(folds) if j != i])
        speaker = train(make_network(), method, (x[rest], y[rest]), (x[fold], y[fold]), training, generator)
        speakers.append(speaker)
        said.append(speaker.say(method, x[fold]))
    unseen, targets = torch.cat(said), torch.cat([y[fold] for fold in folds])
    q = conformal_quantile(method.score(unseen, targets), max(alpha, 1 / (len(y) + 1)))
    return Fitted(speakers, statistics.fmean(lengths(method.sets(unseen, q))))


def train(
    network: nn.Module,
    method: Method,
    data: tuple[Tensor, Tensor],
    unseen: tuple[Tensor, Tensor],
    training: Training,
    generator: Generator,
) -> Speaker:
    """Trains one network, in place.

    Args:
        network: It.
        method: Its loss.
        data: Inputs (n, ...) and targets (n,) to learn from.
        unseen: Those that say after which epoch it is best.
        training: How.
        generator: Source of randomness, on the CPU.
    """
    x, y = data
    steps = training.epochs * math.ceil(len(y) / training.batch_size)
    optimizer, step = _optimizer(network, training, len(y), steps), 0
    least, best = math.inf, _weights(network, optimizer, training, generator)
    for _ in range(training.epochs):
        for rows in torch.randperm(len(y), generator=generator).split(training.batch_size):
            lower_learning_rate(optimizer, 0.0, step / steps)
            with optimizer.sampled_params(train=True) if isinstance(optimizer, IVON) else nullcontext():
                optimizer.zero_grad()
                method.loss(network(x[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
        with torch.no_grad(), evaluating(network):
            loss = float(method.loss(network(unseen[0]), unseen[1]))
        if loss < least:
            least, best = loss, _weights(network, optimizer, training, generator)
    return Speaker(network.double(), [{name: w.double() for name, w in weights.items()} for weights in best])


def _optimizer(network: nn.Module, training: Training, examples: int, steps: int) -> Optimizer:
    if training.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=training.lr_factor * ADAMW_LR)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    settings = ivon_settings(parameters, examples, steps)
    settings["lr"] *= training.lr_factor
    seed = int(torch.randint(2**31, ()))
    return IVON(network.parameters(), **settings, betas=(0.9, 0.9999), seed=seed)


def _weights(
    network: nn.Module, optimizer: Optimizer, training: Training, generator: Generator
) -> list[dict[str, Tensor]]:
    """Samples of the posterior as it is now, or the weights as they are; buffers are not copied."""
    posterior = Posterior.of(network, optimizer)
    if posterior is None:
        return [{name: p.detach().clone() for name, p in network.named_parameters()}]
    return [posterior.sample(generator) for _ in range(training.samples)]
