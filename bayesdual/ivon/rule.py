"""IVON's settings from the size of what is learned, or from a measurement: a rule instead of a search.

For N examples and S steps, over which the learning rate falls to 0,

    lr = min(reach / sqrt(S size), largest),     ess = N,     hess_init = size / (share N),     max_norm = 3

For a stream, whose later experiences nobody knows, it takes the number of parameters P for the size, and N and S of an
experience:

    lr = min(2400 / sqrt(S P), 3/4),     hess_init = P / (45 N)

For data that are there ``suggest.py`` measures what is to be put in.

Where it comes from. In so few steps the Hessian hardly leaves hess_init, so that a step is one of gradient descent
with momentum, at weights perturbed by noise of variance 1 / (ess hess_init).

- The noise raises the loss by about P times its variance times the mean curvature of a weight: it has to shrink as P
  grows. With P / 45 it costs nothing that shows, with a sixteenth of that two points on Split Fashion-MNIST.
- More steps need less of a learning rate, and it must stay below what the curvature allows, which grows with the
  network.
- A kernel meets many positions of an image, and the loss is steeper along it: with convolutions half of that.
- New classes begin with a large loss, of 75 where experiences have one class each; a step down its gradient can throw
  the network so far that it never comes back. Gradients longer than max_norm are shortened to it.

The constants were read off validation accuracies, most of them on Split Digits (5, 20 and 50 epochs, 85,000 parameters)
and Split Fashion-MNIST (1 and 5 epochs, 270,000 parameters); docs/ivon.md has what it gives on other streams. Far from
these sizes it is a first guess; for training on one dataset alone, without a memory replayed beside it, its learning
rate is safe but small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, TypedDict

from bayesdual.ivon.optimizer import IVON

LR = 2400.0
LARGEST_LR = 0.75
SHARE = 45.0
MAX_NORM = 3.0
CONVOLUTIONS = 0.5


class IVONSettings(TypedDict):
    """Those settings of :class:`bayesdual.IVON` that the rule gives."""

    lr: float
    ess: float
    hess_init: float
    max_norm: float


class Scales(NamedTuple):
    """What the rule needs to know of a problem: its size, and how learning rate and noise go with it.

    With 1 for the size, ``reach`` is the learning rate of a single step, and 1 / ``share`` the precision of the noise.
    """

    size: float
    reach: float
    largest: float
    share: float
    max_norm: float = MAX_NORM


def settings_at(scales: Scales, examples: float, steps: float) -> IVONSettings:
    """The rule above."""
    return {
        "lr": min(scales.reach / math.sqrt(steps * scales.size), scales.largest),
        "ess": float(examples),
        "hess_init": scales.size / (scales.share * examples),
        "max_norm": scales.max_norm,
    }


def ivon_settings(parameters: int, examples: float, steps: float) -> IVONSettings:
    """The rule above, guessing from the number of parameters.

    Args:
        parameters: Number of parameters P that are learned.
        examples: Number of training examples N, of an experience if there are several.
        steps: Number of steps S, of an experience if there are several.

    Returns:
        Keyword arguments of :class:`bayesdual.IVON`: ``IVON(model.parameters(), **ivon_settings(P, N, S))``.

    Raises:
        ValueError: A number is not positive.
    """
    for name, value in (("parameters", parameters), ("examples", examples), ("steps", steps)):
        if value <= 0:
            raise ValueError(f"{name} is {value}: the rule for IVON's settings needs a positive number.")
    return settings_at(Scales(parameters, LR, LARGEST_LR, SHARE), examples, steps)


class IVONByRule:
    """IVON with settings by the rule, once it is known what is to be learned.

    Where there are kernels of convolutions (parameters of more than two dimensions) the learning rate is half.

    Args:
        lr_factor: Multiplies the rule's learning rate.
        betas: Decay of the momentum and of the Hessian.
        weight_decay: As IVON's.
        noise: Multiplies the variance of the rule's noise, by more or less of ``hess_init``.

    Raises:
        ValueError: ``noise`` is not positive.
    """

    def __init__(
        self,
        lr_factor: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.9999),
        weight_decay: float = 1e-4,
        noise: float = 1.0,
    ) -> None:
        if not 0 < noise < math.inf:
            raise ValueError(f"noise is {noise}: give a positive number.")
        self.lr_factor = lr_factor
        self.betas = betas
        self.weight_decay = weight_decay
        self.noise = noise

    def make(self, params: Iterable[Any], examples: float, steps: float) -> IVON:
        """Makes the optimizer of some parameters; for the numbers see :func:`ivon_settings`.

        Raises:
            ValueError: ``lr_factor`` is negative, or a number not positive.
        """
        params = list(params)
        learned = [p for p in params if p.requires_grad]
        settings = ivon_settings(sum(p.numel() for p in learned), examples, steps)
        settings["lr"] *= self.lr_factor * (CONVOLUTIONS if any(p.dim() > 2 for p in learned) else 1.0)
        settings["hess_init"] /= self.noise
        return IVON(params, **settings, betas=self.betas, weight_decay=self.weight_decay)
