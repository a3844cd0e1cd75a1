"""Numbers of 16 bits, and what of IVON's mean they cannot hold.

The state of parameters of 16 bits is in float32, and so is the mean, of which the parameter holds a rounded copy: a
bfloat16 has 8 bits, so that what is added to it is lost if it is less than 1/512 of it, as most steps are. Each draw,
restoration and step is rounded into the parameter. Where the parameter is not the rounded mean, somebody has written to
it (loaded weights, clamped them), and what they wrote is the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """In which type to compute with numbers of a type, and to keep what belongs to them."""
    return torch.promote_types(dtype, torch.float32)


def unrounded(p: Tensor, mean: Tensor | None) -> Tensor:
    """The mean of a parameter, in the type of its state.

    Args:
        p: What the parameter holds, at the mean.
        mean: The float32 mean of the last step; None if there is none, and of no use if it has another shape.
    """
    if mean is None or mean.shape != p.shape:
        return p.to(at_least_single(p.dtype))
    return torch.where(mean.to(p.dtype) == p, mean, p.to(mean.dtype))
