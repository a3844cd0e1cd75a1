"""What the inputs of a stream are like, and how they become what networks take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bayesdual.stream.experience import ExperienceData, normalise
from bayesdual.stream.parts import Parted, Parts


@dataclass(frozen=True)
class Inputs:
    """Shape, type and normalisation of inputs.

    Attributes:
        shape: Of one input.
        dtype: Their type as the stream gives them, such as ``uint8``.
        mean: Per-channel mean, on the scale 0..1; empty where they are used as they are.
        std: Per-channel standard deviation, likewise.
        parts: What lies in one input, where that is a dict or a tuple.
    """

    shape: tuple[int, ...]
    dtype: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    parts: Parts | None = None

    @classmethod
    def of(cls, data: ExperienceData) -> Inputs:
        """Those of some data."""
        x = data.inputs(torch.arange(1))
        mean, std = ((*map(float, values),) for values in (data.mean, data.std))
        return cls(tuple(x.shape[1:]), _name(x), mean, std, getattr(data, "parts", None))

    def normalised(self, x: Tensor) -> Tensor | Parted:
        """Inputs (B, ...) as networks take them."""
        return normalise(x, self.mean, self.std) if self.parts is None else self.parts.unpacked(x)

    def refuse_others(self, others: Inputs) -> None:
        """Refuses a stream whose inputs are others than those that were learned.

        Raises:
            ValueError: They are; it says in what.
        """
        for what, mine, theirs in (
            ("inputs that are", *(parts or "one tensor" for parts in (self.parts, others.parts))),
            ("inputs of shape", self.shape, others.shape),
            ("inputs of type", self.dtype, others.dtype),
            ("inputs normalised by the mean", self.mean, others.mean),
            ("inputs normalised by the std", self.std, others.std),
        ):
            if mine != theirs:
                raise ValueError(
                    f"data.benchmark has {what} {theirs}, but {mine} has been learned: give inputs like those learned "
                    "before."
                )

    def taken(self, x: Any) -> Tensor:
        """Inputs of other people's as one tensor, shape (B, ...).

        Args:
            x: A tensor or an array, or, of inputs of several parts, a dict or a tuple of those.

        Raises:
            ValueError: They have another shape or type.
        """
        if self.parts is not None:
            return self.parts.taken(x)
        x = torch.as_tensor(x)
        if tuple(x.shape[1:]) != self.shape or _name(x) != self.dtype:
            raise ValueError(
                f"the inputs are {_name(x)} of shape {tuple(x.shape)}: give {self.dtype} of shape "
                f"({', '.join(('N', *map(str, self.shape)))}), as they were learned."
            )
        return x

    def __str__(self) -> str:
        return f"of shape {self.shape}" if self.parts is None else str(self.parts)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Inputs:
        """What :meth:`state_dict` gave."""
        mean, std, parts = tuple(state["mean"]), tuple(state["std"]), Parts.from_state_dict(state.get("parts"))
        return cls(tuple(state["shape"]), state["dtype"], mean, std, parts)


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
