"""The soft labels of a memory: what the network says now of all that is in it."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.memory.exemplars import IMPOSSIBLE, Exemplars
from bayesdual.memory.spread import AnySpread
from bayesdual.stream import Predict

PREDICTIONS = 8  # that a soft label is the mean of; fewer of many vectors, which stand for less each
ALL = 8000  # predictions of a memory, at least one each
BATCH = 1000


def soft_labels(
    predict: Predict,
    z: Exemplars,
    spread: AnySpread | None,
    examples: float,
    temperature: float,
    generator: torch.Generator,
    likelihood: Likelihood = CATEGORICAL,
) -> Tensor:
    """What the network says now of exemplars, as logits, shape (M, C): the K-prior's old model is the last one.

    Of memory vectors with a spread it is the mean prediction; for arguments see :func:`mean_predictions`.
    """
    if spread:
        return mean_predictions(predict, z, spread, examples, temperature, generator, likelihood)
    parts = zip(z.x.split(BATCH), z.tasks.split(BATCH), strict=True)
    return torch.cat([predict(*part).float() for part in parts])


def mean_predictions(
    predict: Predict,
    z: Exemplars,
    spread: AnySpread,
    examples: float,
    temperature: float,
    generator: torch.Generator,
    likelihood: Likelihood = CATEGORICAL,
) -> Tensor:
    """The soft labels of memory vectors, as logits, shape (M, C).

    Args:
        predict: The network's logits, of inputs and task labels.
        z: The vectors.
        spread: Of the examples around them.
        examples: Number of past examples that its draws are of the sum over.
        temperature: T.
        generator: Source of randomness, on the CPU.
        likelihood: Of the targets.
    """
    labels, n = [], max(1, min(PREDICTIONS, ALL // len(z)))
    for x, t in zip(z.x.split(BATCH), z.tasks.split(BATCH), strict=True):
        noisy = (spread.around(x, examples, 1.0, generator) for _ in range(n))
        total = reduce(torch.add, (likelihood.mean(predict(part, t).float() / temperature) for part in noisy))
        labels.append((temperature * likelihood.link(total / n)).clamp_min(IMPOSSIBLE))
    return torch.cat(labels)
