"""IVON's settings for an adapter: steps of the same length in each of its matrices, and noise by the rule for streams.

With P weights that are learned, and s the root mean square of the first step of each matrix,

    hess_init = h0 = 1e-3,   max_rms = rho = 1e-5,   lr = s h0 / rho (not rescaled),   ess = P / (45 h0)

Gradients of an adapter are far longer than rho, so that g is rho g / rms(g) in each matrix: the steepest descent of all
steps whose root mean square is s there. Two things follow.

- **In a stream** the loss of the new examples has the share N / (N + N'), which falls. In gradient descent the steps of
  what is new fall with it; here they do not, as only the direction of a gradient counts.
- Within a matrix, small gradients stay small. IVON-LoRA's bound on each weight, clip_radius far below the gradients,
  makes of them steps as large as of any: of the thousands of weights of classes that are not learned now, too.

The variance of the noise is 1 / (ess h0) = 45 / P, as ``bayesdual.ivon.ivon_settings`` has it. docs/lora.md has what
was measured.

Source: h0 from IVON-LoRA (Cong et al., 2024); the length of steps by matrix from LARS (You et al., 2017).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bayesdual.ivon import IVON, IVONByRule

HESS_INIT, MAX_RMS, SHARE = 1e-3, 1e-5, 45.0
WEIGHT_DECAY = 1e-6  # far below hess_init


class IVONForLoRA(IVONByRule):
    """IVON with settings for an adapter, once it is known how many weights are learned.

    Args:
        step: s, the root mean square of a matrix's first step; it takes the place of AdamW's learning rate.
        betas: Decay of the momentum and of the Hessian.

    Raises:
        ValueError: ``step`` is not positive.
    """

    def __init__(self, step: float = 5e-3, betas: tuple[float, float] = (0.9, 0.9999)) -> None:
        if step <= 0:
            raise ValueError(f"step is {step}: give a positive number.")
        super().__init__(betas=betas, weight_decay=WEIGHT_DECAY)
        self.step = step

    def make(self, params: Iterable[Any], examples: float, steps: float) -> IVON:
        """Makes the optimizer of some parameters, whatever the number of examples and of steps."""
        params = list(params)
        learned = sum(p.numel() for p in params if p.requires_grad)
        return IVON(
            params,
            lr=self.step * HESS_INIT / MAX_RMS,
            ess=learned / (SHARE * HESS_INIT),
            hess_init=HESS_INIT,
            max_rms=MAX_RMS,
            rescale_lr=False,
            betas=self.betas,
            weight_decay=self.weight_decay,
        )
