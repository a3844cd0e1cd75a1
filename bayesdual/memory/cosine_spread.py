"""The spread around memory vectors in few bytes: a variance for each coefficient of the cosine transform.

    e ~ N(0, D^T diag(v) D),    v = sum_z sum_{i in Z} w_i (D (x_i - x_z))^2 / sum_i w_i

with D the cosine transform of images (``bayesdual/memory/codec.py``), in which their coefficients are nearly
uncorrelated, and the identity for other inputs. It takes two bytes a coefficient, 1.6 kB for images of 28 x 28, where
the draws of ``bayesdual/memory/spread.py``, which have the whole covariance, take 1.6 MB. What coding loses is added.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesdual.memory.codec import coefficients, pixels


class CosineSpread:
    """What memory vectors lose of the inputs that they stand for: a variance for each coefficient, of all together."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None  # v times sum_i w_i, of the shape of an input

    def __bool__(self) -> bool:
        return self._sum is not None

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return 0 if self._sum is None else 2 * self._sum.numel()

    def add(self, deviations: Tensor, generator: torch.Generator | None = None) -> None:
        """Takes in what was lost when vectors were made, merged or coded.

        Args:
            deviations: sqrt(w) (x - x_z), shape (n, ...), floating.
            generator: Not needed.

        Raises:
            ValueError: Inputs were infinite or not numbers.
        """
        if not deviations.isfinite().all():
            raise ValueError("inputs of the memory are infinite or not numbers: look for them in the training data.")
        new = (coefficients(deviations) if deviations.dim() == 4 else deviations).square().sum(0)
        total = new if self._sum is None else self._sum.to(new) + new
        self._sum = total.to(torch.bfloat16).float()  # as it is kept

    def around(self, x: Tensor, examples: float, scale: float, generator: torch.Generator) -> Tensor:
        """Inputs that vectors may stand for.

        Args:
            x: Memory vectors, shape (B, ...), uint8 or floating.
            examples: Number of past examples that v is the mean over.
            scale: s, of the noise.
            generator: Source of randomness, on the CPU.

        Returns:
            Inputs of the shape and type of ``x``; those in uint8 stay in its range.
        """
        if self._sum is None:
            return x
        self._sum = self._sum.to(x.device)
        noise = torch.randn(x.shape, generator=generator).to(x.device) * ((self._sum / examples).sqrt() * scale)
        noisy = (pixels(noise) if x.dim() == 4 else noise) + x
        return (noisy.round_().clamp_(0, 255) if x.dtype == torch.uint8 else noisy).to(x.dtype)

    def state_dict(self) -> dict[str, Any]:
        """A tensor or None."""
        return {"sum": None if self._sum is None else self._sum.to(torch.bfloat16)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        self._sum = None if state["sum"] is None else state["sum"].float()
