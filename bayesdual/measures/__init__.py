"""Measures of continual learning and of calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.lazy import attach
from bayesdual.measures.continual import (
    Evaluation,
    Matrix,
    average_accuracy,
    average_seen_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)

__all__ = [
    "CALIBRATION_BINS",
    "Evaluation",
    "Matrix",
    "StreamMetric",
    "average_accuracy",
    "average_seen_accuracy",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
]

if TYPE_CHECKING:
    from bayesdual.measures.stream_metric import CALIBRATION_BINS, StreamMetric
else:
    _LAZY = dict.fromkeys(("CALIBRATION_BINS", "StreamMetric"), "stream_metric")
    __getattr__, __dir__ = attach(__name__, _LAZY, {"stream_metric": "lightning"})
