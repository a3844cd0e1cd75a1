"""The bytes that an algorithm carries from one experience to the next, beyond the network and its optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bayesdual.algorithm import BayesDual


def carried_bytes(algorithm: BayesDual) -> dict[str, int]:
    """The bytes that an algorithm carries, by part, as it stores them.

    Counted are a byte of each exemplar for its label, and all tensors of inputs, soft labels, weights, spread, prior;
    scores and positions in the source dataset are not, since only people look at them. An algorithm that counts itself,
    by a method ``memory_bytes``, is believed.
    """
    if hasattr(algorithm, "memory_bytes"):
        return algorithm.memory_bytes()
    state = algorithm.state_dict()
    exemplars = state["memory"]["exemplars"] or {}
    parts = {
        "inputs": _bytes(exemplars.get("x")),
        "labels": len(exemplars.get("y", ())),
        "soft_labels": _bytes(exemplars.get("logits")),
        "weights": _bytes(exemplars.get("weights")),
        "spread": _bytes(state["memory"]["spread"]),
        "prior": _bytes(state["weight_prior"]),
    }
    return {name: size for name, size in parts.items() if size}


def _bytes(state: Any) -> int:
    """Bytes of all tensors in nested mappings."""
    if isinstance(state, Tensor):
        return state.nbytes
    return sum(map(_bytes, state.values())) if isinstance(state, Mapping) else 0
