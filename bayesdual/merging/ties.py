"""TIES: of each model's change the largest entries, and of these those that agree with the majority in sign.

    tau_t = theta_t - theta_0, all but its largest entries set to 0         (trim, tensor by tensor)
    sign  = sign(sum_t s_t tau_t)                                           (elect)
    theta = theta_0 + alpha * mean of the s_t tau_t that have that sign     (disjoint merge)

The mean is over the models whose entry is not 0, weighted by s.

Source: Yadav et al., "TIES-Merging", NeurIPS 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdual.merging.block import Block


def ties(block: Block, density: float = 0.2) -> Tensor:
    """The equations above.

    Args:
        block: Weights to merge; a whole tensor.
        density: Share of the entries that are kept, in 0..1 and not 0.

    Returns:
        theta, of the shape of the base.

    Raises:
        ValueError: ``density`` is not in 0..1.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}: it is the share of entries that are kept, above 0 and at most 1.")
    elected = torch.zeros_like(block.base)
    for s, change in zip(block.scales, block.changes, strict=True):
        elected += s * _trimmed(change, density)
    elected = elected.sign()
    total, weight = torch.zeros_like(block.base), torch.zeros_like(block.base)
    for s, change in zip(block.scales, block.changes, strict=True):
        kept = _trimmed(change, density)
        agrees = (kept.sign() == elected) & (kept != 0)
        total += torch.where(agrees, s * kept, 0)
        weight += agrees * s
    return block.base + block.alpha * total / torch.where(weight > 0, weight, 1)


def _trimmed(change: Tensor, density: float) -> Tensor:
    sizes = change.abs().flatten()
    dropped = int(sizes.numel() * (1 - density))
    return change if dropped == 0 else torch.where(change.abs() > sizes.kthvalue(dropped).values, change, 0)
