"""IVON's settings for an adapter: steps of the same length in each of its matrices, and noise by the rule for streams.

``bayesdual/ivon/by_matrix.py`` has the equations; here s is given, and the variance of the noise is 45 / P, as
``bayesdual.ivon.ivon_settings`` has it. Two things follow.

- **In a stream** the loss of the new examples has the share N / (N + N'), which falls. In gradient descent the steps of
  what is new fall with it; here they do not, as only the direction of a gradient counts.
- Within a matrix, small gradients stay small. IVON-LoRA's bound on each weight, clip_radius far below the gradients,
  makes of them steps as large as of any: of the thousands of weights of classes that are not learned now, too.

docs/lora.md has what was measured.

Source: h0 from IVON-LoRA (Cong et al., 2024).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bayesdual.ivon import IVON, IVONByRule, ivon_by_matrix

SHARE = 45.0
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
        return ivon_by_matrix(params, self.step, SHARE, self.betas, self.weight_decay)
