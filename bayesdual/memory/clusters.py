"""Clusters of features, and what is nearest to their centres."""

from __future__ import annotations

import torch
from torch import Tensor

K_MEANS_ROUNDS = 8
TOGETHER = 250  # centres that are looked for at once


def herd(features: Tensor, n: int) -> Tensor:
    """Greedily chosen rows whose running mean stays closest to the mean of all.

    With mu the mean and s the sum of the chosen, the next is the minimiser of |mu - (s + phi)/(k+1)|^2.

    Args:
        features: Shape (N, D).
        n: How many to choose, at most N.

    Returns:
        Their positions in the order chosen, shape (min(n, N),).
    """
    mean = features.mean(0)
    squares = features.square().sum(1)
    free = torch.zeros(len(features), device=features.device)
    total = torch.zeros_like(mean)
    rows = []
    for k in range(min(n, len(features))):
        # |mu - (s + phi)/(k+1)|^2 up to what does not depend on phi, times (k+1)^2
        gap = total - (k + 1) * mean
        row = int((squares + 2 * (features @ gap) + free).argmin())
        rows.append(row)
        free[row] = torch.inf
        total = total + features[row]
    return torch.tensor(rows, dtype=torch.int64)


def one_of_each_cluster(x: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clusters the rows of ``x`` (N, D) and returns the row nearest to each centre, in random order, with weights 1.

    Many centres are found in parts, each among its share of the rows, so that the time grows with N and not with N n.
    """
    if n >= len(x):
        rows = torch.arange(len(x))
    elif n <= TOGETHER:
        rows = nearest_to_centres(x, k_means(x, n, generator))
    else:
        order = torch.randperm(len(x), generator=generator)
        parts, found = -(-n // TOGETHER), []
        for i in range(parts):
            mine = order[i::parts]
            share = n // parts + (i < n % parts)
            part = x[mine.to(x.device)]
            found.append(mine[nearest_to_centres(part, k_means(part, min(share, len(part)), generator))])
        rows = torch.cat(found)
    return rows[torch.randperm(len(rows), generator=generator)], torch.ones(len(rows))


def k_means(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Centres of Lloyd's algorithm, started at random examples; a centre without examples stays where it is.

    Args:
        x: Shape (N, D).
        k: Number of centres, at most N.
        generator: Source of randomness, on the CPU.

    Returns:
        Shape (k, D).
    """
    centres = x[torch.randperm(len(x), generator=generator)[:k].to(x.device)]
    for _ in range(K_MEANS_ROUNDS):
        nearest = torch.cdist(x, centres).argmin(1)
        counts = torch.bincount(nearest, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
    return centres


def nearest_to_centres(x: Tensor, centres: Tensor) -> Tensor:
    """The row of ``x`` (N, D) nearest to each of the k <= N ``centres`` (k, D), no row twice; shape (k,)."""
    distances = torch.cdist(centres, x).cpu()
    rows = []
    for row in distances:
        rows.append(int(row.argmin()))
        distances[:, rows[-1]] = torch.inf
    return torch.tensor(rows, dtype=torch.int64)
