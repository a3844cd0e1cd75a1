"""Whether a classifier's probabilities mean what they say.

With c = max_k p_k the confidence, a whether the likeliest class is right, and bins b of n_b of the n examples each:

    ECE           sum_b n_b/n |mean a - mean c|,    bins of equal width in c
    adaptive ECE  the same,                         bins of as many examples each, in the order of c
    Brier         mean of sum_k (p_k - 1[y = k])^2
    AURC          mean over i of the share of errors among the i most confident: 0 where all are right, and small where
                  errors come last

TorchMetrics' ECE leaves out a confidence of exactly 1, which is in no bin of its; it has none of the others.

Sources: Guo et al., ICML 2017 (ECE); Nixon et al., CVPR workshops 2019 (adaptive); Geifman, Uziel & El-Yaniv, ICLR 2019
(AURC).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CALIBRATION_BINS = 15


def ece(p: Tensor, y: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error over bins of equal width.

    Args:
        p: Class probabilities, shape (B, C).
        y: Labels, shape (B,).
        bins: Number of bins.
    """
    return gap_by_width(*confidence_and_right(p, y), bins)


def adaptive_ece(p: Tensor, y: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error over bins with as many examples each. Arguments are those of :func:`ece`."""
    return gap_by_count(*confidence_and_right(p, y), bins)


def brier(p: Tensor, y: Tensor) -> float:
    """Brier score, between 0 and 2. Arguments are those of :func:`ece`."""
    return float(squared_distance(p, y).mean())


def aurc(p: Tensor, y: Tensor) -> float:
    """Area under the curve of risk and coverage; of equal confidences the order given counts.

    Arguments are those of :func:`ece`.
    """
    return risk_of_confident(*confidence_and_right(p, y))


# ---- The same of numbers that are kept of each example, all of shape (B,) and in float64 --------------------


def confidence_and_right(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The confidence of each example, and whether it is right (1 or 0)."""
    confidence, predicted = p.double().max(1)
    return confidence, (predicted == y).double()


def squared_distance(p: Tensor, y: Tensor) -> Tensor:
    """The squared distance of probabilities (B, C) from the labels (B,)."""
    return (p.double() - torch.nn.functional.one_hot(y, p.shape[1])).square().sum(1)


def gap_by_width(confidence: Tensor, right: Tensor, bins: int = CALIBRATION_BINS) -> float:
    gaps = torch.zeros(bins, dtype=torch.float64, device=right.device)
    gaps.index_add_(0, _bin(confidence, bins), right - confidence)
    return float(gaps.abs().sum() / len(right))


def _bin(confidence: Tensor, bins: int) -> Tensor:
    """Which bin of equal width each is in; a confidence of 1 is in the last."""
    return (confidence.nan_to_num() * bins).long().clamp_max(bins - 1)


def gap_by_count(confidence: Tensor, right: Tensor, bins: int = CALIBRATION_BINS) -> float:
    gaps = (right - confidence)[confidence.argsort(stable=True)].tensor_split(bins)
    return float(torch.stack([part.sum() for part in gaps]).abs().sum() / len(right))


class Bin(NamedTuple):
    """The answers of about the same confidence: how many, how sure on average, and the share of them that is right."""

    answers: int
    confidence: float
    accuracy: float


def reliability(confidence: Tensor, right: Tensor, bins: int = CALIBRATION_BINS) -> list[Bin]:
    """What a reliability diagram shows: the bins of the ECE, in ascending order, without those that are empty."""
    place = _bin(confidence, bins)
    inside = [place == b for b in range(bins)]
    return [Bin(int(i.sum()), float(confidence[i].mean()), float(right[i].mean())) for i in inside if i.any()]


def risk_of_confident(confidence: Tensor, right: Tensor) -> float:
    wrong = (1 - right)[confidence.argsort(descending=True, stable=True)]
    return float((wrong.cumsum(0) / torch.arange(1, len(right) + 1, device=right.device)).mean())
