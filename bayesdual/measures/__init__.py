"""Measures of continual learning, of calibration, and of what a network knows that it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.lazy import attach
from bayesdual.measures.answers import Answers, Measured, answers_of, measured, told_apart
from bayesdual.measures.calibration import CALIBRATION_BINS, Bin, adaptive_ece, aurc, brier, ece, reliability
from bayesdual.measures.continual import (
    ACCURACY,
    RMSE,
    SCORES,
    Evaluation,
    Matrix,
    NumberEvaluation,
    Score,
    accuracy_of_classes,
    average_accuracy,
    average_seen_accuracy,
    backward_transfer,
    best,
    forgetting,
    forward_transfer,
    scores_of,
)
from bayesdual.measures.entropy import Entropy, split_entropy
from bayesdual.measures.out_of_distribution import ood_auroc, ood_fpr
from bayesdual.measures.two_samples import TwoSamples, mmd_test

__all__ = [
    "ACCURACY",
    "CALIBRATION_BINS",
    "Answers",
    "Bin",
    "Entropy",
    "Evaluation",
    "Matrix",
    "Measured",
    "NumberEvaluation",
    "NumberMetric",
    "RMSE",
    "SCORES",
    "Score",
    "StreamMetric",
    "TwoSamples",
    "accuracy_of_classes",
    "adaptive_ece",
    "answers_of",
    "aurc",
    "average_accuracy",
    "average_seen_accuracy",
    "backward_transfer",
    "best",
    "brier",
    "ece",
    "forgetting",
    "forward_transfer",
    "measured",
    "mmd_test",
    "ood_auroc",
    "ood_fpr",
    "reliability",
    "scores_of",
    "split_entropy",
    "told_apart",
]

if TYPE_CHECKING:
    from bayesdual.measures.number_metric import NumberMetric
    from bayesdual.measures.stream_metric import StreamMetric
else:
    __getattr__, __dir__ = attach(
        __name__,
        {"NumberMetric": "number_metric", "StreamMetric": "stream_metric"},
        {"number_metric": "lightning", "stream_metric": "lightning"},
    )
