"""The average of models, each weight of each model counting by its curvature.

    theta = theta_0 + alpha (sum_t s_t h_t)^-1 sum_t s_t h_t (theta_t - theta_0),    h_t a diagonal

Where no model has any curvature, it is the plain average: the limit of a small curvature that all share.

Source: Matena & Raffel, "Merging models with Fisher-weighted averaging", NeurIPS 2022 (alpha = 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdual.merging.block import Block, diagonal_of


def fisher(block: Block) -> Tensor:
    """The equation above; of Kronecker factors the diagonal.

    Args:
        block: Weights to merge, with curvatures.

    Returns:
        theta, of the shape of the base.
    """
    h = [diagonal_of(curvature) for curvature in block.curvatures if curvature is not None]
    total, push, plain = (torch.zeros_like(block.base) for _ in range(3))
    for h_t, s, change in zip(h, block.scales, block.changes, strict=True):
        total += h_t
        push += h_t * change
        plain += s * change / sum(block.scales)
    known = total > 0
    return block.base + block.alpha * torch.where(known, push / torch.where(known, total, 1), plain)
