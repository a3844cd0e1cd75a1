"""How well a score of unfamiliarity tells data of another kind from data like those learned.

    AUROC   P(score of the other kind > score of the known kind), ties counting half
    FPR95   share of the known kind that is taken for the other by the threshold that finds 95% of the other

Scores can be entropies, mutual information or 1 - max_k p_k: large means unfamiliar. TorchMetrics' AUROC puts a sigmoid
on scores beyond 1, which makes ties of large ones; so the ranks are counted here.

Source: Hendrycks & Gimpel, ICLR 2017.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def ood_auroc(known: Tensor, other: Tensor) -> float:
    """Area under the ROC curve.

    Args:
        known: Scores of data like those learned, shape (n,).
        other: Scores of data of another kind, shape (m,).
    """
    ordered = known.double().sort().values
    below, until = (torch.searchsorted(ordered, other.double(), right=right).double() for right in (False, True))
    return float((below + until).mean() / (2 * len(known)))


def ood_fpr(known: Tensor, other: Tensor, found: float = 0.95) -> float:
    """Share of known data at or above the threshold that at least a share of the other data is at or above.

    Args:
        known: As in :func:`ood_auroc`, as is the next.
        other: Scores of data of another kind.
        found: Share of these that is found.
    """
    threshold = other.sort(descending=True).values[math.ceil(found * len(other) - 1e-9) - 1]
    return float((known >= threshold).double().mean())
