"""What a method of merging is given at once: a parameter, a part of it, or the weights and bias of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bayesdual.posterior import Curvature, KroneckerFactors


@dataclass(frozen=True, eq=False)
class Block:
    """The weights that are merged together, in float32 or better, all of one shape.

    Attributes:
        base: theta_0.
        models: theta_t, of T models.
        scales: s_t, T of them, not all 0.
        alpha: How far from the base the merged weights are, 0..1.
        curvatures: s_t H_t: diagonals of the shape of ``base``, or factors where that is (O, D); None: unknown.
        base_curvature: s_0 H_0; None: taken as 0.
        limits: What the method's ``survey`` told of each model.
    """

    base: Tensor
    models: Sequence[Tensor]
    scales: Sequence[float]
    alpha: float
    curvatures: Sequence[Curvature | None]
    base_curvature: Curvature | None = None
    limits: Sequence[float] = ()

    @property
    def changes(self) -> list[Tensor]:
        """theta_t - theta_0."""
        return [model - self.base for model in self.models]


def shrunk(matrix: Tensor, off_diagonal: float) -> Tensor:
    """A matrix whose entries off the diagonal are multiplied by a factor: it stays positive semidefinite.

    Raises:
        ValueError: The factor is not in 0..1.
    """
    if not 0 <= off_diagonal <= 1:
        raise ValueError(f"off_diagonal is {off_diagonal}: it is a factor between 0 and 1.")
    return off_diagonal * matrix + (1 - off_diagonal) * matrix.diagonal().diag()


def diagonal_of(curvature: Curvature) -> Tensor:
    """The diagonal of a curvature, which is all of it unless it has factors."""
    return curvature.diagonal() if isinstance(curvature, KroneckerFactors) else curvature
