"""Numbers of different scales made alike: mean 0 and standard deviation 1 in the first experience."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEARLY_CONSTANT = 1e-3  # standard deviation in the first experience, as a share of that in all


@dataclass(frozen=True, eq=False)
class Scale:
    """(x - mean) / std of each channel; a channel whose ``std`` is infinite becomes 0.

    Attributes:
        mean: Shape (C,), float64.
        std: Shape (C,), float64.
    """

    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Inputs (N, C, ...), any type of number, to the same shape in float32."""
        of_channels = (-1, *[1] * (x.dim() - 2))
        return ((x.double() - self.mean.view(of_channels)) / self.std.view(of_channels)).float()


def scale_of(x: Tensor, first: Tensor, learned: Tensor, names: Sequence[str]) -> Scale:
    """The scale of the first experience.

    A stream is not known before it is learned, so that only its beginning may say what its numbers are like. Where that
    says nothing, since a channel hardly changes in it, all that is learned has to, and a warning names the channel. One
    that never changes is told of, and left at 0.

    Args:
        x: Inputs, shape (N, C, ...), finite.
        first: Rows that the first experience learns from.
        learned: Rows that any experience learns from.
        names: What the C channels are called.
    """
    mean, std = _moments(x[first])
    mean_of_all, std_of_all = _moments(x[learned])
    constant = std_of_all <= 1e-12 * (1 + mean_of_all.abs())
    silent = ~constant & (std < NEARLY_CONSTANT * std_of_all)
    if constant.any():
        warnings.warn(f"{_few(names, constant)} never changes in training, and is left at 0.", stacklevel=3)
    if silent.any():
        warnings.warn(
            f"{_few(names, silent)} hardly changes in the first experience: it is standardised by all training data.",
            stacklevel=3,
        )
    std = torch.where(silent, std_of_all, std)
    return Scale(torch.where(silent, mean_of_all, mean), torch.where(constant, torch.inf, std))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, shape (C,), float64."""
    of_channel = x.transpose(0, 1).flatten(1).double()
    return of_channel.mean(1), of_channel.std(1, correction=0)


def _few(names: Sequence[str], chosen: Tensor) -> str:
    found = [name for name, is_one in zip(names, chosen.tolist(), strict=True) if is_one]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more, each" if len(found) > 5 else "")
