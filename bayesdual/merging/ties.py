"""TIES: of each model's change the largest entries, and of these those that agree with the majority in sign.

    tau_t = theta_t - theta_0, all but its largest entries set to 0         (trim, tensor by tensor)
    sign  = sign(sum_t s_t tau_t)                                           (elect)
    theta = theta_0 + alpha * mean of the s_t tau_t that have that sign     (disjoint merge)

The mean is over the models whose entry is not 0, weighted by s. How large an entry has to be is counted over the whole
tensor first, bit by bit; then it is merged part by part.

Source: Yadav et al., "TIES-Merging", NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bayesdual.merging.block import Block

DIGIT = 16  # bits that are counted at a time
BITS = {torch.float32: (torch.int32, 32), torch.float64: (torch.int64, 64)}


def ties(block: Block) -> Tensor:
    """The equations above, of a part of a tensor.

    Args:
        block: Weights to merge; its limits are those of ``trimming``.

    Returns:
        theta, of the shape of the base.
    """
    kept = [torch.where(c.abs() > limit, c, 0) for c, limit in zip(block.changes, block.limits, strict=True)]
    elected = sum(
        (s * change for s, change in zip(block.scales, kept, strict=True)), torch.zeros_like(block.base)
    ).sign()
    total, weight = torch.zeros_like(block.base), torch.zeros_like(block.base)
    for s, change in zip(block.scales, kept, strict=True):
        agrees = (change.sign() == elected) & (change != 0)
        total += torch.where(agrees, s * change, 0)
        weight += agrees * s
    return block.base + block.alpha * total / torch.where(weight > 0, weight, 1)


def trimming(change: Callable[[], Iterator[Tensor]], entries: int, density: float = 0.2) -> float:
    """How large an entry of a model's change is at most that is set to 0.

    Args:
        change: Goes through the change of a whole tensor, in parts.
        entries: How many entries it has.
        density: Share of the entries that are kept, above 0 and at most 1.

    Returns:
        The limit; -1 if all are kept.

    Raises:
        ValueError: ``density`` is not in 0..1.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}: it is the share of entries that are kept, above 0 and at most 1.")
    dropped = int(entries * (1 - density))
    return kth_magnitude(change, dropped) if dropped else -1.0


def kth_magnitude(parts: Callable[[], Iterator[Tensor]], k: int) -> float:
    """The k-th smallest of the absolute values, from 1 on, exactly.

    Bits of numbers that are not negative are in the order of the numbers, so that their digits can be counted from the
    first on: each pass over the parts tells one more.

    Args:
        parts: Goes through the numbers in parts, in float32 or float64, all in one.
        k: Which.
    """
    dtype = next(parts()).dtype
    whole_number, bits = BITS[dtype]
    prefix = 0
    for shift in range(bits - DIGIT, -1, -DIGIT):
        counts = torch.zeros(2**DIGIT, dtype=torch.int64)
        for part in parts():
            number = part.abs().reshape(-1).view(whole_number)
            same = number if shift + DIGIT == bits else number[number >> (shift + DIGIT) == prefix]
            counts += torch.bincount((same >> shift) & (2**DIGIT - 1), minlength=2**DIGIT).cpu()
        below = counts.cumsum(0)
        digit = int(torch.searchsorted(below, k))
        k -= int(below[digit - 1]) if digit else 0
        prefix = prefix << DIGIT | digit
    return float(torch.tensor(prefix, dtype=whole_number).view(dtype))
