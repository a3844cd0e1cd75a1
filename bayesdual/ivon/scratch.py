"""Temporary tensors that are used again and again, instead of being asked for in every step.

To hand out fresh memory takes the system as long as arithmetic on it does: half of a small network's step.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_own = threading.local()  # each thread has its own


def spare(name: str, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of shape (size,), holding anything, until the thread asks for the next of this name.

    On other devices than a CPU, where PyTorch keeps memory itself, it is a new one.
    """
    if device.type != "cpu":
        return torch.empty(size, dtype=dtype, device=device)
    key = f"{name} {dtype}"
    kept = getattr(_own, key, None)
    if kept is None or len(kept) < size:
        kept = torch.empty(size, dtype=dtype)
        setattr(_own, key, kept)
    return kept[:size]
