"""Measures of continual learning and of calibration."""

from bayesdual.measures.continual import (
    Matrix,
    average_accuracy,
    average_seen_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from bayesdual.measures.stream_metric import CALIBRATION_BINS, StreamMetric

__all__ = [
    "CALIBRATION_BINS",
    "Matrix",
    "StreamMetric",
    "average_accuracy",
    "average_seen_accuracy",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
]
