"""Inputs of several parts, a dict or a tuple of tensors (tokens and their mask), as one tensor and back.

Batches, memory and processes hand on one tensor. Parts lie in it one after the other, as whole numbers; numbers with a
fraction lie there by their bits. So an exemplar keeps all parts to the bit, and none is ever averaged: the mean of two
masks is no mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}  # by bytes of a number with a fraction
Parted = dict[str, Tensor] | tuple[Tensor, ...]
"""The parts of a batch, each of shape (B, ...)."""


@dataclass(frozen=True)
class Parts:
    """What the parts of an input are like.

    Attributes:
        names: Of a dict; None: it is a tuple.
        shapes: Of each part of one input.
        dtypes: Their types, such as ``float32``.
    """

    names: tuple[str, ...] | None
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    @classmethod
    def of(cls, x: Any, name: str) -> Parts | None:
        """Those of one input; None where it is a single tensor.

        Args:
            x: What an item of a dataset gives.
            name: What to call the dataset in an error.

        Raises:
            ValueError: A part is no tensor.
        """
        return cls._like(*_taken_apart(x, name), batched=False) if has_parts(x) else None

    @classmethod
    def _like(cls, names: tuple[str, ...] | None, tensors: Sequence[Tensor], batched: bool) -> Parts:
        shapes = tuple(tuple(part.shape[batched:]) for part in tensors)
        return cls(names, shapes, tuple(str(part.dtype).removeprefix("torch.") for part in tensors))

    def stacked(self, inputs: Sequence[Any], name: str) -> Tensor:
        """Inputs as one tensor.

        Args:
            inputs: Dicts or tuples like the one that these parts are of.
            name: What to call the dataset in an error.

        Returns:
            Shape (B, D), int64, D being the numbers that all parts have together.

        Raises:
            ValueError: One has other parts, or a part is not finite.
        """
        for x in inputs:
            if (theirs := Parts.of(x, name)) != self:
                raise ValueError(
                    f"the inputs of {name} are not alike: one is {self}, another {theirs or type(x).__name__}; give a "
                    "transform that makes all of them alike (pad texts to one length)."
                )
        return self.packed([torch.stack([torch.as_tensor(x[key]) for x in inputs]) for key in self._keys()])

    def packed(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts (B, ...), in their order, as one tensor (B, D), int64."""
        whole = [p.contiguous().view(BITS[p.element_size()]) if p.is_floating_point() else p for p in parts]
        return torch.cat([part.to(torch.int64).reshape(len(part), -1) for part in whole], 1)

    def tensors(self, x: Tensor) -> list[Tensor]:
        """What :meth:`packed` was given, of a packed ``x`` (B, D)."""
        parts, first = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            size, kind = prod(shape), getattr(torch, dtype)
            bits = BITS[kind.itemsize] if kind.is_floating_point else kind
            parts.append(x[:, first : first + size].to(bits).view(kind).reshape(-1, *shape))
            first += size
        return parts

    def unpacked(self, x: Tensor) -> Parted:
        """The same as a dict where parts have names, else a tuple."""
        parts = self.tensors(x)
        return tuple(parts) if self.names is None else dict(zip(self.names, parts, strict=True))

    def taken(self, x: Any) -> Tensor:
        """A batch of other people's, as :meth:`packed` gives it.

        Args:
            x: A dict or a tuple of tensors or arrays, each of shape (B, ...).

        Raises:
            ValueError: It has other parts; the sentence says which it should have.
        """
        theirs = tensors = None
        if has_parts(x):
            names, tensors = _taken_apart(x, "the batch")
            theirs = self._like(names, tensors, batched=True)
        if tensors is None or theirs != self or len({len(part) for part in tensors}) > 1:
            raise ValueError(
                f"the inputs are {theirs or type(x).__name__}: give {self}, each with as many inputs in its first "
                "dimension, as they were learned."
            )
        return self.packed(tensors)

    def _keys(self) -> Sequence[Any]:
        return range(len(self.shapes)) if self.names is None else self.names

    def __str__(self) -> str:
        each = (f"{key}: {t} {s}" for key, t, s in zip(self._keys(), self.dtypes, self.shapes, strict=True))
        return f"{'a tuple' if self.names is None else 'a dict'} of {', '.join(each)}"

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any] | None) -> Parts | None:
        """What ``dataclasses.asdict`` made of one."""
        if state is None:
            return None
        names = state["names"]
        return cls(None if names is None else tuple(names), tuple(map(tuple, state["shapes"])), tuple(state["dtypes"]))


def has_parts(x: Any) -> bool:
    """Whether an input is a dict, or a tuple or list of tensors or arrays that are more than single numbers."""
    if isinstance(x, tuple | list):
        return len(x) > 0 and all(hasattr(part, "shape") and len(part.shape) > 0 for part in x)
    return isinstance(x, Mapping)


def _taken_apart(x: Any, name: str) -> tuple[tuple[str, ...] | None, list[Tensor]]:
    """The names of parts, None of a tuple's, and the parts."""
    keys: Sequence[Any] = sorted(x, key=str) if isinstance(x, Mapping) else range(len(x))
    return tuple(map(str, keys)) if isinstance(x, Mapping) else None, [_tensor(x[key], key, name) for key in keys]


def _tensor(part: Any, key: Any, name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.is_complex():
        raise ValueError(
            f"the part {key!r} of the inputs of {name} is {type(part).__name__}, which is no tensor of real numbers: "
            "leave it out, or make one of it by a transform."
        )
    return tensor
