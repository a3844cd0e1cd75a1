"""How a budget of exemplars is shared out over classes, and over the experiences that brought them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256

import torch
from torch import Tensor


def fair_shares(available: Sequence[int], budget: int) -> list[int]:
    """Shares a budget out as equally as what is available allows.

    Args:
        available: How many each could take.
        budget: How many there are to give.

    Returns:
        How many each gets: at most what it could take, differing by at most 1 between those that could take
        more, in all ``min(budget, sum(available))``. What does not divide goes to the first.
    """
    shares = [0] * len(available)
    left = min(budget, sum(available))
    while left > 0:
        unfilled = [i for i, a in enumerate(available) if shares[i] < a]
        each = max(1, left // len(unfilled))
        for i in unfilled[:left]:
            given = min(each, available[i] - shares[i])
            shares[i] += given
            left -= given
    return shares


def quotas(available: Mapping[tuple[int, int], int], budget: int) -> dict[tuple[int, int], int]:
    """How many exemplars each (class, experience) may keep.

    Args:
        available: Number of candidates by (class, experience).
        budget: Size of the memory.
    """
    groups: dict[int, list[int]] = {}
    for c, e in sorted(available):
        groups.setdefault(c, []).append(e)
    classes, sums = list(groups), by_class(available)
    for c in classes:
        groups[c].sort(key=lambda e: draw_order(c, e))
    of_class = fair_shares([sums[c] for c in classes], budget)
    result = {}
    for c, share in zip(classes, of_class, strict=True):
        for e, n in zip(groups[c], fair_shares([available[c, e] for e in groups[c]], share), strict=True):
            result[c, e] = n
    return result


def classes_or_one(y: Tensor) -> Tensor:
    """What a memory is shared out over, shape (N,), int64: classes; targets that are numbers are all of one."""
    return torch.zeros_like(y, dtype=torch.int64) if y.is_floating_point() else y


def draw_order(label: int, experience: int) -> bytes:
    """Which experiences of a class come first: as if drawn, so that neither age nor class matters, and for good.

    In an order that changed as experiences come, places would fall to some whose exemplars are gone.
    """
    return sha256(f"{label}/{experience}".encode()).digest()


def by_class(counts: Mapping[tuple[int, int], int]) -> Counter[int]:
    """Sums of what is given by (class, experience)."""
    sums = Counter[int]()
    for (c, _), n in counts.items():
        sums[c] += n
    return sums


def class_weights(counts: Mapping[tuple[int, int], int], y: Tensor) -> Tensor:
    """What an example of each class counts where classes count the same: g_c, whose mean over all examples is 1.

    Args:
        counts: Examples of the past, by (class, experience).
        y: Labels of the new ones, shape (N,).

    Returns:
        Shape (largest class + 1,).
    """
    past = by_class(counts)
    n = y.cpu().bincount(minlength=1 + max([int(y.max()), *past])).float()
    for c, more in past.items():
        n[c] += more
    return torch.where(n > 0, n.sum() / (n > 0).sum() / n.clamp_min(1), 0.0)
