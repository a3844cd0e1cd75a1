"""The average of models, weighted by their scales.

    theta = theta_0 + alpha sum_t s_t (theta_t - theta_0) / sum_t s_t

Source: Wortsman et al., "Model soups", ICML 2022 (alpha = 1).
"""

from __future__ import annotations

from torch import Tensor

from bayesdual.merging.block import Block


def average(block: Block) -> Tensor:
    """The equation above.

    Args:
        block: Weights to merge.

    Returns:
        theta, of the shape of the base.
    """
    weight = block.alpha / sum(block.scales)
    return block.base + sum(s * weight * change for s, change in zip(block.scales, block.changes, strict=True))
