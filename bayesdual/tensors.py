"""Tensors of what has grown, such as the head of a network that meets new classes: the old in the corner of the new."""

from __future__ import annotations

import torch
from torch import Tensor


def grow(old: Tensor | None, like: Tensor, fill: float) -> Tensor:
    """Returns a tensor as ``like``, with ``old`` in the corner where all indices are small and ``fill`` elsewhere.

    Raises:
        ValueError: ``old`` is larger than ``like``.
    """
    new = torch.empty_like(like, requires_grad=False)
    fill_(new, old, fill)
    return new


def fill_(new: Tensor, old: Tensor | None, fill: float) -> None:
    """Puts ``old`` in the corner of ``new`` where all indices are small, and ``fill`` elsewhere.

    Raises:
        ValueError: ``old`` is larger than ``new``.
    """
    if old is not None and not fits(old, new):
        raise ValueError(
            f"IVON's state of shape {tuple(old.shape)} does not fit a parameter of shape {tuple(new.shape)}: a "
            "parameter can grow, but not shrink."
        )
    if old is None or old.shape != new.shape:
        new.fill_(fill)
    if old is not None:
        new[tuple(slice(n) for n in old.shape)] = old.to(new)


def fits(old: Tensor, new: Tensor) -> bool:
    """Whether one tensor can be the corner of another."""
    return old.dim() == new.dim() and all(a <= b for a, b in zip(old.shape, new.shape, strict=True))


def in_memory_order(dense: Tensor) -> Tensor:
    return dense.as_strided((dense.numel(),), (1,))


def is_dense(tensor: Tensor) -> bool:
    """Whether the numbers fill one stretch of memory, in whatever order (``channels_last`` does)."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
