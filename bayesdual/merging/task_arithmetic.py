"""Task arithmetic: what models have learned is added to the base.

    theta = theta_0 + alpha sum_t s_t (theta_t - theta_0)

Source: Ilharco et al., "Editing models with task arithmetic", ICLR 2023.
"""

from __future__ import annotations

from torch import Tensor

from bayesdual.merging.block import Block


def task_arithmetic(block: Block) -> Tensor:
    """The equation above.

    Args:
        block: Weights to merge.

    Returns:
        theta, of the shape of the base.
    """
    return block.base + sum(block.alpha * s * change for s, change in zip(block.scales, block.changes, strict=True))
