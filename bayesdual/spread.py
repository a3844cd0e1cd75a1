"""The spread of examples around the memory vectors that stand for them, given back as noise.

A memory vector x_z that is the mean of a cell Z of examples (``bayesdual/condensation.py``) keeps the first moment of
what a linear layer sees, for whatever weights, and loses the second. What all vectors together lose is kept as one
matrix, and a vector is replayed as one of the inputs that it may stand for:

    W = sum_z sum_{i in Z} w_i (x_i - x_z) (x_i - x_z)^T / sum_i w_i,        x = x_z + s e,   e ~ N(0, W)

Its soft label is the network's mean prediction of such inputs, softmax(l / T) = mean of softmax(f(x_z + e) / T), which
is less sure than that of the mean alone. One covariance for all classes is what streaming discriminant analysis keeps
(Hayes & Kanan, CVPR workshops 2020).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesdual.kprior import Predict
from bayesdual.memory import IMPOSSIBLE, Exemplars

BANK = 1024  # draws of e; two of them, with random signs, make the noise of a vector
JITTER = 1e-6  # of the mean variance, so that inputs that never vary do no harm
DRAWS = 16  # predictions that a soft label is the mean of
BATCH = 1000


class Spread:
    """What memory vectors lose of the inputs that they stand for: the scatter around them, of all together."""

    def __init__(self) -> None:
        self._scatter: Tensor | None = None  # (D, D), a sum over past examples
        self._bank: Tensor | None = None

    def __bool__(self) -> bool:
        return self._scatter is not None

    def add(self, scatter: Tensor) -> None:
        """Takes in the scatter around vectors that were made or merged.

        Args:
            scatter: Sum of w (x - x_z) (x - x_z)^T over what was merged into them, shape (D, D).
        """
        self._scatter = scatter if self._scatter is None else self._scatter.to(scatter.device) + scatter
        self._bank = None

    def around(self, x: Tensor, examples: float, scale: float, generator: torch.Generator) -> Tensor:
        """Inputs that vectors may stand for.

        Args:
            x: Memory vectors, shape (B, ...), uint8 or floating.
            examples: Number of past examples that the scatter is the sum over.
            scale: s.
            generator: Source of randomness, on the CPU.

        Returns:
            Inputs of the shape and type of ``x``; those in uint8 stay in its range.
        """
        if self._scatter is None:
            return x
        bank = self._draws(x.device)
        picked = torch.randint(len(bank), (2, len(x)), generator=generator).to(x.device)
        signs = (torch.randint(2, (2, len(x), 1), generator=generator) * 2.0 - 1).to(x.device)
        noise = (signs * bank[picked]).sum(0) * (scale / (2 * examples) ** 0.5)
        noisy = x.float() + noise.view(x.shape)
        return (noisy.round_().clamp_(0, 255) if x.dtype == torch.uint8 else noisy).to(x.dtype)

    def _draws(self, device: torch.device) -> Tensor:
        """Draws of N(0, scatter), shape (BANK, D), always the same for the same scatter."""
        if self._bank is None:
            root = square_root(self._scatter)
            normal = torch.randn(BANK, len(root), generator=torch.Generator().manual_seed(0))
            self._bank = normal.to(root.device) @ root.T
        self._bank = self._bank.to(device)
        return self._bank

    def state_dict(self) -> dict[str, Any]:
        """A tensor or None."""
        return {"scatter": self._scatter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        self._scatter, self._bank = state["scatter"], None


def square_root(scatter: Tensor) -> Tensor:
    """L with L L^T = ``scatter``, shape (D, D), up to what its rounding and directions without any variance need.

    Raises:
        ValueError: Inputs were infinite or not numbers.
    """
    if not scatter.isfinite().all():
        raise ValueError("inputs of the memory are infinite or not numbers: look for them in the training data.")
    jitter, info, scatter = JITTER * float(scatter.diagonal().mean()) or 1e-12, 1, scatter.double()
    while info:
        root, info = torch.linalg.cholesky_ex(scatter + jitter * torch.eye(len(scatter)).to(scatter))
        jitter *= 10
    return root.float()


def mean_predictions(
    predict: Predict,
    z: Exemplars,
    spread: Spread,
    examples: float,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """The soft labels of memory vectors, as logits, shape (M, C).

    Args:
        predict: The network's logits, of inputs and task labels.
        z: The vectors.
        spread: Of the examples around them.
        examples: Number of past examples that it is the sum over.
        temperature: T.
        generator: Source of randomness, on the CPU.
    """
    labels = []
    for x, t in zip(z.x.split(BATCH), z.t.split(BATCH), strict=True):
        total: Tensor | float = 0.0
        for _ in range(DRAWS):
            logits = predict(spread.around(x, examples, 1.0, generator), t).float()
            total = total + (logits / temperature).softmax(1)
        labels.append((temperature * (total / DRAWS).log()).clamp_min(IMPOSSIBLE))
    return torch.cat(labels)
