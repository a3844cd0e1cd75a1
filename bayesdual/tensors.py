"""Tensors that grow, such as the head of a network that meets new classes: the old one is the corner of the new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def fits(shape: Sequence[int], tensor: Tensor) -> bool:
    """Whether a tensor of this shape can grow to that of ``tensor``."""
    return len(shape) == tensor.dim() and all(old <= new for old, new in zip(shape, tensor.shape, strict=True))


def whole(tensor: Any) -> Tensor:
    """All of a tensor; of one that processes share out (a DTensor) each of them has to ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def corner(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of a tensor that was there before it grew to its shape: a view of where all indices are small.

    Args:
        tensor: The tensor now.
        shape: Its shape before.

    Raises:
        ValueError: ``shape`` is larger, or of another number of dimensions.
    """
    if not fits(shape, tensor):
        raise ValueError(
            f"shape {tuple(shape)} does not fit shape {tuple(tensor.shape)}: a parameter can grow, but not shrink."
        )
    return tensor[tuple(slice(size) for size in shape)]


def grow(old: Tensor | None, like: Tensor, fill: float) -> Tensor:
    """A new tensor of the shape, type, device and memory order of ``like``: ``old`` in its corner, ``fill`` elsewhere.

    Args:
        old: The tensor before; None where there was none.
        like: Any tensor at least as large.
        fill: The value of what is new.

    Raises:
        ValueError: ``old`` is larger than ``like``, or of another number of dimensions.
    """
    return grow_into_(torch.empty_like(like, requires_grad=False), old, fill)


def grow_into_(new: Tensor, old: Tensor | None, fill: float) -> Tensor:
    """Overwrites ``new`` with ``old`` in its corner and ``fill`` elsewhere, and returns it; see :func:`grow`."""
    if old is None:
        return new.fill_(fill)
    part = corner(new, old.shape)
    if old.shape != new.shape:
        new.fill_(fill)
    part.copy_(old)
    return new


def bytes_in(state: Any) -> int:
    """Bytes of all tensors in nested mappings."""
    if isinstance(state, Tensor):
        return state.nbytes
    return sum(bytes_in(part) for part in state.values()) if isinstance(state, Mapping) else 0
