"""Measures of continual learning, of calibration, and of what a network knows that it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.lazy import attach
from bayesdual.measures.calibration import adaptive_ece, aurc, brier
from bayesdual.measures.continual import (
    Evaluation,
    Matrix,
    average_accuracy,
    average_seen_accuracy,
    backward_transfer,
    best,
    forgetting,
    forward_transfer,
)
from bayesdual.measures.entropy import Entropy, split_entropy
from bayesdual.measures.out_of_distribution import ood_auroc, ood_fpr

__all__ = [
    "CALIBRATION_BINS",
    "Entropy",
    "Evaluation",
    "Matrix",
    "StreamMetric",
    "adaptive_ece",
    "aurc",
    "average_accuracy",
    "average_seen_accuracy",
    "backward_transfer",
    "best",
    "brier",
    "forgetting",
    "forward_transfer",
    "ood_auroc",
    "ood_fpr",
    "split_entropy",
]

if TYPE_CHECKING:
    from bayesdual.measures.stream_metric import CALIBRATION_BINS, StreamMetric
else:
    _LAZY = dict.fromkeys(("CALIBRATION_BINS", "StreamMetric"), "stream_metric")
    __getattr__, __dir__ = attach(__name__, _LAZY, {"stream_metric": "lightning"})
