"""The state of the global random generators, as tensors and plain values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Returns the state of PyTorch's, CUDA's, NumPy's and Python's generators: loads with ``weights_only=True``."""
    state: Any = np.random.get_state()  # a tuple, unless asked otherwise
    name, keys, *rest = state
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Sets what :func:`random_state` gave; CUDA's only where there are as many devices."""
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn inside, the global generators stand outside as before."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


@contextmanager
def kept_state_of_cpu() -> Iterator[None]:
    """As :func:`kept_random_state`, but for CUDA's generators, which processes that were forked cannot ask for."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)


def seed_cpu(seed: int) -> None:
    """Sets PyTorch's generator of the CPU, NumPy's and Python's to a seed below 2^64; CUDA's stay as they are."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
