"""The spread of examples around the memory vectors that stand for them, given back as noise.

A memory vector x_z that is the mean of a cell Z of examples (``bayesdual/memory/vectors.py``) keeps the first moment of
what a linear layer sees, for whatever weights, and loses the second. What all vectors together lose is put back: a
vector is replayed as one of the inputs that it may stand for,

    x = x_z + s e,   e ~ N(0, W),   W = sum_z sum_{i in Z} w_i (x_i - x_z) (x_i - x_z)^T / sum_i w_i

Its soft label is the network's mean prediction of such inputs, softmax(l / T) = mean of softmax(f(x_z + e) / T), which
is less sure than that of the mean alone. One covariance for all classes is what streaming discriminant analysis keeps
(Hayes & Kanan, CVPR workshops 2020). Here it is not kept, but draws of N(0, sum_i w_i W) are, to which those of every
further merging are added, as variances of independent variables add up:

    e_k <- e_k + sum_i n_ki sqrt(w_i) (x_i - x_z),   n_ki ~ N(0, 1)
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

DRAWS = 512  # that are kept


class AnySpread(Protocol):
    """What memory vectors lose of the inputs that they stand for: :class:`Spread`, or one that takes few bytes."""

    def __bool__(self) -> bool:
        """Whether anything was lost yet."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        ...

    def add(self, deviations: Tensor, generator: torch.Generator) -> None:
        """Takes in sqrt(w) (x - x_z), shape (n, ...), of what was lost."""

    def around(self, x: Tensor, examples: float, scale: float, generator: torch.Generator) -> Tensor:
        """Inputs that vectors may stand for, by noise of that scale; ``examples`` is how many the spread is of."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Spread:
    """What memory vectors lose of the inputs that they stand for: draws of the noise around them, of all together."""

    def __init__(self) -> None:
        self._draws: Tensor | None = None  # e, shape (DRAWS, D)

    def __bool__(self) -> bool:
        return self._draws is not None

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return 0 if self._draws is None else self._draws.numel() * self._draws.element_size()

    def add(self, deviations: Tensor, generator: torch.Generator) -> None:
        """Takes in what was lost when vectors were made or merged.

        Args:
            deviations: sqrt(w) (x - x_z) of what was merged into them, shape (n, ...).
            generator: Source of randomness, on the CPU.

        Raises:
            ValueError: Inputs were infinite or not numbers.
        """
        if not deviations.isfinite().all():
            raise ValueError("inputs of the memory are infinite or not numbers: look for them in the training data.")
        new = torch.randn(DRAWS, len(deviations), generator=generator).to(deviations) @ deviations.flatten(1)
        self._draws = new if self._draws is None else new.add_(self._draws.to(new))

    def around(self, x: Tensor, examples: float, scale: float, generator: torch.Generator) -> Tensor:
        """Inputs that vectors may stand for.

        Args:
            x: Memory vectors, shape (B, ...), uint8 or floating.
            examples: Number of past examples that the draws are of the sum over.
            scale: s.
            generator: Source of randomness, on the CPU.

        Returns:
            Inputs of the shape and type of ``x``; those in uint8 stay in its range.
        """
        if self._draws is None:
            return x
        self._draws = self._draws.to(x.device)
        picked = torch.randint(2 * len(self._draws), (len(x),), generator=generator)
        signs = (picked % 2 * 2 - 1) * (scale * examples**-0.5)
        noise = self._draws.index_select(0, (picked // 2).to(x.device)).mul_(signs.to(self._draws)[:, None])
        noisy = noise.view(x.shape).add_(x)
        return (noisy.round_().clamp_(0, 255) if x.dtype == torch.uint8 else noisy).to(x.dtype)

    def state_dict(self) -> dict[str, Any]:
        """A tensor or None."""
        return {"draws": self._draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave.

        Raises:
            ValueError: The state is of an older version, which kept a matrix.
        """
        if "draws" not in state:
            raise ValueError("the checkpoint is of an older version of bayesdual, with another spread: learn again.")
        self._draws = state["draws"]
