"""What the inputs of a stream are like, and how they become what networks take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bayesdual.stream.experience import ExperienceData, normalise


@dataclass(frozen=True)
class Inputs:
    """Shape, type and normalisation of inputs.

    Attributes:
        shape: Of one input.
        dtype: Their type as the stream gives them, such as ``uint8``.
        mean: Per-channel mean, on the scale 0..1; empty where they are used as they are.
        std: Per-channel standard deviation, likewise.
    """

    shape: tuple[int, ...]
    dtype: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def of(cls, data: ExperienceData) -> Inputs:
        """Those of some data."""
        x = data.inputs(torch.arange(1))
        return cls(tuple(x.shape[1:]), _name(x), (*map(float, data.mean),), (*map(float, data.std),))

    def normalised(self, x: Tensor) -> Tensor:
        """Inputs (B, ...) as networks take them."""
        return normalise(x, self.mean, self.std)

    def refuse_others(self, others: Inputs) -> None:
        """Refuses a stream whose inputs are others than those that were learned.

        Raises:
            ValueError: They are; it says in what.
        """
        for what, mine, theirs in (
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

    def refuse(self, x: Tensor) -> None:
        """Refuses inputs that are not like these.

        Args:
            x: Inputs, shape (B, ...).

        Raises:
            ValueError: They have another shape or type.
        """
        if tuple(x.shape[1:]) != self.shape or _name(x) != self.dtype:
            raise ValueError(
                f"the inputs are {_name(x)} of shape {tuple(x.shape)}: give {self.dtype} of shape "
                f"({', '.join(('N', *map(str, self.shape)))}), as they were learned."
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Inputs:
        """What :meth:`state_dict` gave."""
        return cls(tuple(state["shape"]), state["dtype"], tuple(state["mean"]), tuple(state["std"]))


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
