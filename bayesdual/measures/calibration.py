"""Whether a classifier's probabilities mean what they say.

With c = max_k p_k the confidence, a whether the likeliest class is right, and bins b of as many of the n examples each,
in the order of c:

    adaptive ECE  sum_b n_b/n |mean a - mean c|
    Brier         mean of sum_k (p_k - 1[y = k])^2
    AURC          mean over i of the share of errors among the i most confident: 0 where all are right, and small where
                  errors come last

The ECE over bins of equal width is ``StreamMetric``'s: TorchMetrics' last bin leaves out a confidence of exactly 1. It
has none of these.

Sources: Nixon et al., CVPR workshops 2019 (adaptive); Geifman, Uziel & El-Yaniv, ICLR 2019 (AURC).
"""

from __future__ import annotations

import torch
from torch import Tensor


def adaptive_ece(p: Tensor, y: Tensor, bins: int = 15) -> float:
    """Expected calibration error over bins with as many examples each.

    Args:
        p: Class probabilities, shape (B, C).
        y: Labels, shape (B,).
        bins: Number of bins.
    """
    confidence, right = _confidence(p, y)
    order = confidence.argsort(stable=True)
    gaps = (right - confidence)[order].tensor_split(bins)
    return float(torch.stack([part.sum() for part in gaps]).abs().sum() / len(y))


def brier(p: Tensor, y: Tensor) -> float:
    """Brier score, between 0 and 2. Arguments are those of :func:`adaptive_ece`."""
    labels = torch.nn.functional.one_hot(y, p.shape[1])
    return float((p.double() - labels).square().sum(1).mean())


def aurc(p: Tensor, y: Tensor) -> float:
    """Area under the curve of risk and coverage; of equal confidences the order given counts.

    Arguments are those of :func:`adaptive_ece`.
    """
    confidence, right = _confidence(p, y)
    wrong = (1 - right)[confidence.argsort(descending=True, stable=True)]
    return float((wrong.cumsum(0) / torch.arange(1, len(y) + 1, device=y.device)).mean())


def _confidence(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The confidence of each example, and whether it is right (1 or 0), in float64."""
    confidence, predicted = p.double().max(1)
    return confidence, (predicted == y).double()
