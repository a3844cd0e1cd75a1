"""What holds a sample of the weights, and how it is put in and taken out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdual.ivon.blocks import Block, Layout
from bayesdual.ivon.equations import perturb_
from bayesdual.ivon.noise import standard_normal_


def draw_(block: Block, key: str) -> None:
    """Keeps the mean, and puts a sample into the parameters."""
    torch._foreach_copy_(block.means, block.params)
    block.sampled = True
    deviation, deviations = block.spare("first")
    torch.add(block.hess, block.group["weight_decay"], out=deviation).rsqrt_()
    noise, noises = block.spare("second")
    standard_normal_(noise, f"{key} {block.number}")
    perturb_(block.params, noises, deviations, block.group["ess"])


def restore_(block: Block) -> None:
    """Puts the mean back, and keeps eps, as the parameters have rounded it."""
    if block.sampled:
        theta, thetas = block.spare("first")
        torch._foreach_copy_(thetas, block.params)
        torch._foreach_copy_(block.params, block.means)
        block.sampled = False  # if a call is interrupted before this, the next still finds the mean
        torch.sub(theta, block.buffer, out=block.buffer)


@dataclass
class RunState:
    """What changes in an optimizer beside its groups and state: one object, which Lightning's copies share."""

    seed: int
    draws: int = 0  # samples drawn for training,
    predictions: int = 0  # and for prediction

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets what can be made again."""
        self.layout = Layout([], {})
        self.seed_is_shared = False
        self.has_seen_a_loss = False
        self.gradients_are_local = False
        self.zeroed = False  # the gradients, since the last sample
        self.sampled = False  # the parameters hold a sample
        self.forget_samples()

    def forget_samples(self) -> None:
        self.key: str | None = None  # of a sample whose gradient is not used yet
        self.closed: dict[Tensor, Tensor] = {}  # the gradients when the parameters last held it
        self.totals: dict[Tensor, tuple[Tensor, Tensor]] = {}  # sums of g and of eps g, over the samples before it
        self.n_totals = 0
