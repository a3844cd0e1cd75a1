"""Which examples of a class to keep, and how many examples each of them stands for.

A selection is a function ``(candidates, n, generator) -> (rows, weights)``: the rows of at most n candidates, the
most important first (when the class's share of the memory shrinks, the last are dropped), and their weights, which
count only relative to each other. Any function of that form, named in the configuration by its dotted path, will do.

Scores and features say different things. An example with a high score says where the boundary lies; it does not
represent its class, and a memory of the highest scores replayed as if it were the data is ruinous in
class-incremental learning (see ``top_score``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.memory.clusters import herd, one_of_each_cluster

PROJECTIONS = 256  # of the dual features


@dataclass(frozen=True)
class Candidates:
    """The examples of one class of one experience (where there are no classes, all of one) that a memory may keep.

    Attributes:
        features: Inputs of the network's last layer, shape (N, D).
        logits: The network's logits, shape (N, C).
        scores: How much the posterior relies on each (see ``bayesdual.posterior``), shape (N,).
        likelihood: Of their targets.
    """

    features: Tensor
    logits: Tensor
    scores: Tensor
    likelihood: Likelihood = CATEGORICAL

    def __len__(self) -> int:
        return len(self.scores)


Selection = Callable[[Candidates, int, torch.Generator], tuple[Tensor, Tensor]]


def choose(selection: Selection, candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a selection returns, seen to be what it should; the rows are on the CPU.

    Args:
        selection: Any.
        candidates: N examples.
        n: How many to choose, at least 1.
        generator: Source of randomness, on the CPU.

    Raises:
        ValueError: It is not up to n different rows, and as many weights above 0.
    """
    selected = selection(candidates, n, generator)
    with suppress(TypeError, ValueError, AttributeError):  # of what is no pair of tensors
        rows, weights = (part.cpu() for part in selected)
        if (
            rows.dtype == torch.int64
            and 0 < len(rows) <= n
            and rows.shape == weights.shape == rows.unique().shape
            and 0 <= rows.min() <= rows.max() < len(candidates)
            and bool((weights > 0).all() and weights.isfinite().all())
        ):
            return rows, weights
    raise ValueError(
        f"algorithm.selection returned {selected!r:.80} for {n} of {len(candidates)} examples: it is to return up "
        f"to {n} different positions below {len(candidates)}, as int64, and as many weights, finite and above 0."
    )


def random_selection(candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Any n, each as likely as another; equal weights."""
    rows = torch.randperm(len(candidates), generator=generator)[:n]
    return rows, torch.ones(len(rows))


def herding(candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Those whose mean feature follows the class's, greedily (Welling, ICML 2009; iCaRL, CVPR 2017); equal weights."""
    rows = herd(F.normalize(candidates.features.flatten(1), dim=1), n)
    return rows, torch.ones(len(rows))


def coverage(candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One of each cluster of features: what is nearest to each of n k-means centres, in random order; equal weights.

    The order is random so that any first part of the memory still is a fair sample of the clusters.
    """
    return one_of_each_cluster(candidates.features, n, generator)


def dual_coverage(
    candidates: Candidates, n: int, generator: torch.Generator, temperature: float = 3.0
) -> tuple[Tensor, Tensor]:
    """Coverage in the dual space of Bayes-duality, where an example is its part of the posterior's precision.

    The curvature of the loss of example i in the last layer is z z^T with z = sqrt(Lambda_T) (x) phi; examples alike
    in z hold the posterior in place alike, and one of them can stand for the others.
    """
    return one_of_each_cluster(dual_features(candidates, temperature, generator), n, generator)


def score_sampling(candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sampled in proportion to the score, half and half with uniformly, and weighted by the inverse probability."""
    chance = candidates.scores.cpu() / candidates.scores.sum().cpu().clamp_min(1e-12)
    inclusion = inclusion_probabilities(0.5 * chance + 0.5 / len(candidates), min(n, len(candidates)))
    order = torch.randperm(len(candidates), generator=generator)
    # Systematic sampling: one row at each whole step of the cumulative probability, from a random start.
    steps = (inclusion[order].double().cumsum(0) + torch.rand((), generator=generator)).floor()
    rows = order[torch.diff(steps, prepend=torch.zeros(1, dtype=steps.dtype)) > 0][:n]
    rows = rows[torch.randperm(len(rows), generator=generator)]
    return rows, 1 / inclusion[rows]


def top_score(candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The n highest scores (FROMP's rule when the score is lambda); equal weights.

    Meant for function regularisation in task-incremental streams. Replayed with labels in a class-incremental
    stream it does far worse than ``random``.
    """
    rows = candidates.scores.argsort(descending=True, stable=True)[:n]
    return rows, torch.ones(len(rows))


def inclusion_probabilities(chance: Tensor, n: int) -> Tensor:
    """Probabilities of being among n drawn without replacement: in proportion to ``chance``, at most 1, of sum n.

    Args:
        chance: Positive numbers, shape (N,).
        n: How many are drawn, at most N.
    """
    certain = torch.zeros_like(chance, dtype=torch.bool)
    while True:
        rest = torch.where(certain, 0.0, chance)
        p = torch.where(certain, 1.0, rest * ((n - certain.sum()) / rest.sum().clamp_min(1e-12)))
        over = (p > 1 - 1e-6) & ~certain  # up to rounding
        if not over.any():
            return p
        certain |= over


def dual_features(candidates: Candidates, temperature: float, generator: torch.Generator) -> Tensor:
    """Random projections of sqrt(Lambda_T) (x) (phi, 1), of classes with sqrt(Lambda_T)_cd = sqrt(p_c) (1_cd - p_d).

    Args:
        candidates: N examples, with logits (N, C) and features (N, D).
        temperature: T of p = softmax(logits / T).
        generator: Source of randomness, on the CPU.

    Returns:
        Shape (N, PROJECTIONS): each column is one entry of sqrt(Lambda_T) times one projection of the features.
    """
    f = candidates.logits / temperature
    features = torch.nn.functional.pad(candidates.features, (0, 1), value=1.0)
    c, d = torch.randint(f.shape[1], (2, PROJECTIONS), generator=generator).to(f.device)
    directions = torch.randn(features.shape[1], PROJECTIONS, generator=generator).to(features)
    return candidates.likelihood.factor_entries(f, c, d) * (features @ directions)
