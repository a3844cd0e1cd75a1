"""Measures of continual learning, and the counts they are computed from.

With R (E x E) the accuracy matrix, R[i, j] the accuracy on the test stream of experience j after learning
experience i, and b (E) the accuracies of the untrained network (Lopez-Paz & Ranzato, NeurIPS 2017; Chaudhry et
al., ECCV 2018):

    average accuracy   A   = 1/E     sum_j  R[E-1, j]
    forgetting         F   = 1/(E-1) sum_{j<E-1}  max_{j<=i<E-1} R[i, j] - R[E-1, j]
    backward transfer  BWT = 1/(E-1) sum_{j<E-1}  R[E-1, j] - R[j, j]
    forward transfer   FWT = 1/(E-1) sum_{j>0}    R[j-1, j] - b[j]

Calibration (Guo et al., ICML 2017), over bins of the confidence c = max_k p_k, with n_b examples, mean confidence
c_b and accuracy a_b in bin b:    ECE = sum_b n_b/n |a_b - c_b|.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

CALIBRATION_BINS = 15

Matrix = Sequence[Sequence[float]]


def average_accuracy(accuracy: Matrix) -> float:
    """Mean of the last row of the accuracy matrix: accuracy over experiences, after the last row's experience."""
    return sum(accuracy[-1]) / len(accuracy[-1])


def average_seen_accuracy(accuracy: Matrix) -> float:
    """Mean of the last row over the experiences learned so far (as many as there are rows)."""
    seen = accuracy[-1][: len(accuracy)]
    return sum(seen) / len(seen)


def forgetting(accuracy: Matrix) -> float:
    """Mean drop from the best accuracy an experience ever had to its last; 0 for a single experience."""
    last = len(accuracy) - 1
    drops = [max(accuracy[i][j] for i in range(j, last)) - accuracy[last][j] for j in range(last)]
    return sum(drops) / max(len(drops), 1)


def backward_transfer(accuracy: Matrix) -> float:
    """Mean change of an experience's accuracy from just after it was learned to the end; 0 for one experience."""
    last = len(accuracy) - 1
    changes = [accuracy[last][j] - accuracy[j][j] for j in range(last)]
    return sum(changes) / max(len(changes), 1)


def forward_transfer(accuracy: Matrix, untrained: Sequence[float]) -> float:
    """Mean gain over the untrained network just before an experience is learned; 0 for one experience.

    Args:
        accuracy: Accuracy matrix (E x E).
        untrained: Accuracy of the untrained network on each experience (E).
    """
    gains = [accuracy[j - 1][j] - untrained[j] for j in range(1, len(accuracy))]
    return sum(gains) / max(len(gains), 1)


class StreamMetric(Metric):
    """Accuracy of each experience, and NLL and ECE of the whole stream; exact over any number of ranks.

    State is sums only, so that ranks (and shards of unequal size) reduce by addition.
    """

    full_state_update = False

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

    def compute(self) -> dict[str, list[float] | float]:
        """Returns ``accuracy`` (one per experience; NaN where no example was seen), ``nll`` (nats) and ``ece``."""
        total = self.count.sum()
        return {
            "accuracy": (self.correct / self.count).tolist(),
            "nll": (self.nll_sum / total).item(),
            "ece": ((self.bin_correct - self.bin_confidence).abs().sum() / total).item(),
        }
