"""Accuracy, NLL and ECE of a stream, as sums that reduce over any number of processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from bayesdual.measures.continual import Evaluation

CALIBRATION_BINS = 15


class StreamMetric(Metric):
    """Accuracy of each experience, and NLL and ECE of the whole stream; exact over any number of ranks.

    State is sums only, so that ranks (and shards of unequal size) reduce by addition.
    """

    full_state_update = False
    correct: Tensor
    count: Tensor
    nll_sum: Tensor
    bin_count: Tensor
    bin_correct: Tensor
    bin_confidence: Tensor

    def __init__(self, n_experiences: int) -> None:
        super().__init__()
        for name, size in (
            ("correct", n_experiences),
            ("count", n_experiences),
            ("nll_sum", 1),
            ("bin_count", CALIBRATION_BINS),
            ("bin_correct", CALIBRATION_BINS),
            ("bin_confidence", CALIBRATION_BINS),
        ):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, y: Tensor, experience: int) -> None:
        """Adds a batch.

        Args:
            probabilities: Predicted class probabilities, shape (B, C).
            y: Labels, shape (B,).
            experience: Index of the experience that the batch is from.
        """
        confidence, predicted = probabilities.max(dim=1)
        correct = (predicted == y).double()
        self.correct[experience] += correct.sum()
        self.count[experience] += len(y)
        self.nll_sum -= probabilities.gather(1, y[:, None]).double().clamp_min(1e-38).log().sum()
        bins = (confidence.nan_to_num() * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1)
        self.bin_count.index_add_(0, bins, torch.ones_like(correct))
        self.bin_correct.index_add_(0, bins, correct)
        self.bin_confidence.index_add_(0, bins, confidence.double())

    def compute(self) -> Evaluation:
        """Returns what the batches so far come to, of all ranks together."""
        total = self.count.sum()
        return {
            "accuracy": (self.correct / self.count).tolist(),
            "nll": (self.nll_sum / total).item(),
            "ece": ((self.bin_correct - self.bin_confidence).abs().sum() / total).item(),
        }
