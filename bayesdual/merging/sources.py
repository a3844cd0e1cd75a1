"""Tensors by name, in memory or in files, that are read one by one, and large ones part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from bayesdual.posterior import KroneckerFactors

WHOLE = slice(None)


class Source(Protocol):
    """Tensors by name."""

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shape of each tensor, in their order."""
        ...

    def read(self, name: str, part: slice = WHOLE) -> Tensor:
        """Part of a tensor, flattened; it may share memory with the source."""
        ...


class Held:
    """Tensors that are in memory.

    Args:
        tensors: The tensors by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}

    def read(self, name: str, part: slice = WHOLE) -> Tensor:
        return self._tensors[name].detach().reshape(-1)[part]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that is merged, or the base.

    Attributes:
        label: What sentences call it.
        weights: Its tensors, statistics of batch norms among them.
        diagonal: What is known of its curvature as a diagonal, by parameter name.
        factors: What is known of its curvature as Kronecker factors, by name of the weight.
    """

    label: str
    weights: Source
    diagonal: Source = field(default_factory=lambda: Held({}))
    factors: Mapping[str, KroneckerFactors] = field(default_factory=dict)

    def whole(self, name: str) -> Tensor:
        """One of its tensors, in its shape."""
        return self.weights.read(name).view(self.weights.shapes[name])
