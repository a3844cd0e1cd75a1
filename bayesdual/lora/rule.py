"""IVON's settings for an adapter: steps clipped in each weight, and noise by the rule for streams.

With P weights that are learned, and s the largest step of any of them,

    hess_init = h0 = 1e-3,   clip_radius = xi = 1e-2,   lr = s / xi (not rescaled),   ess = P / (45 h0)

Gradients of an adapter are far larger than h0 xi = 1e-5, so that nearly every weight moves by s, as with Adam; without
the bound a step down the steep loss of new classes throws an adapter so far that it never comes back (docs/lora.md).
The variance of the noise is 1 / (ess h0) = 45 / P, as ``bayesdual.ivon.ivon_settings`` has it.

Source: IVON-LoRA (Cong et al., 2024) for h0 and the clipping; their s is 3e-5, for far larger models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bayesdual.ivon import IVON, IVONByRule

HESS_INIT, CLIP_RADIUS, SHARE = 1e-3, 1e-2, 45.0
WEIGHT_DECAY = 1e-6  # far below hess_init


class IVONForLoRA(IVONByRule):
    """IVON with settings for an adapter, once it is known how many weights are learned.

    Args:
        step: s, the largest step of a weight; it takes the place of AdamW's learning rate.
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
            lr=self.step / CLIP_RADIUS,
            ess=learned / (SHARE * HESS_INIT),
            hess_init=HESS_INIT,
            clip_radius=CLIP_RADIUS,
            rescale_lr=False,
            betas=self.betas,
            weight_decay=self.weight_decay,
        )
