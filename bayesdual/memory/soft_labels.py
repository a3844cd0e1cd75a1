"""The soft labels of a memory: what the network says now of all that is in it."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdual.memory.exemplars import IMPOSSIBLE, Exemplars
from bayesdual.memory.spread import Spread
from bayesdual.stream import Predict

PREDICTIONS = 8  # that a soft label is the mean of
BATCH = 1000


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
        examples: Number of past examples that its draws are of the sum over.
        temperature: T.
        generator: Source of randomness, on the CPU.
    """
    labels = []
    for x, t in zip(z.x.split(BATCH), z.t.split(BATCH), strict=True):
        total: Tensor | float = 0.0
        for _ in range(PREDICTIONS):
            logits = predict(spread.around(x, examples, 1.0, generator), t).float()
            total = total + (logits / temperature).softmax(1)
        labels.append((temperature * (total / PREDICTIONS).log()).clamp_min(IMPOSSIBLE))
    return torch.cat(labels)
