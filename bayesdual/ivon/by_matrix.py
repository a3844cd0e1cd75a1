"""IVON with steps of one length in each matrix: for networks with batch norm, and for adapters.

With P weights that are learned, S steps, and s the root mean square of the first step of each parameter,

    hess_init = h0 = 1e-3,   max_rms = rho = 1e-5,   lr = s h0 / rho (not rescaled),   ess = P / (share h0),
    s = reach / sqrt(S)

Gradients are far longer than rho, so that g is rho g / rms(g) in each parameter: the steepest descent of all steps
whose root mean square is s there. The noise of a weight has the variance 1 / (ess h0) = share / P; ``rule.py`` has ten
times as much.

Where it comes from. With batch norm the length of a kernel's gradient says nothing of how far the kernel has to go: it
is the shorter, the longer the kernel is. In one step of gradient descent the head then moves, and the kernels before it
hardly. docs/ivon.md has which part of the step it was, and what was measured.

Source: the length of steps by matrix from LARS (You et al., "Large batch training of convolutional networks", 2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from bayesdual.ivon.optimizer import IVON
from bayesdual.ivon.rule import IVONByRule

HESS_INIT, MAX_RMS = 1e-3, 1e-5
WEIGHT_DECAY = 1e-6  # far below hess_init
REACH, SHARE = 0.05, 4.5


def ivon_by_matrix(
    params: Iterable[Tensor], step: float, share: float, betas: tuple[float, float], weight_decay: float = WEIGHT_DECAY
) -> IVON:
    """IVON of the settings above.

    Args:
        params: Parameters, some of which may be frozen.
        step: s.
        share: Variance of the noise times P.
        betas: Decay of the momentum and of the Hessian.
        weight_decay: As IVON's, in units of the Hessian.

    Raises:
        ValueError: ``step`` is negative, or nothing is learned.
    """
    params = list(params)
    learned = sum(p.numel() for p in params if p.requires_grad)
    return IVON(
        params,
        lr=step * HESS_INIT / MAX_RMS,
        ess=learned / (share * HESS_INIT),
        hess_init=HESS_INIT,
        max_rms=MAX_RMS,
        rescale_lr=False,
        betas=betas,
        weight_decay=weight_decay,
    )


class IVONByMatrix(IVONByRule):
    """IVON with the settings above, once it is known what is to be learned.

    Args:
        reach: The root mean square of a parameter's first step, times the square root of the number of steps.
        betas: Decay of the momentum and of the Hessian.

    Raises:
        ValueError: ``reach`` is not positive.
    """

    def __init__(self, reach: float = REACH, betas: tuple[float, float] = (0.9, 0.9999)) -> None:
        if reach <= 0:
            raise ValueError(f"reach is {reach}: give a positive number.")
        super().__init__(betas=betas, weight_decay=WEIGHT_DECAY)
        self.reach = reach

    def make(self, params: Iterable[Any], examples: float, steps: float) -> IVON:
        """Makes the optimizer of some parameters, whatever the number of examples.

        Raises:
            ValueError: ``steps`` is not positive.
        """
        if steps <= 0:
            raise ValueError(f"steps is {steps}: steps of one length in each matrix need a positive number.")
        return ivon_by_matrix(params, self.reach / math.sqrt(steps), SHARE, self.betas, self.weight_decay)
