"""Measures of continual learning, and the counts they are computed from.

With R (E x E) the accuracy matrix, R[i, j] the accuracy on the test stream of experience j after learning
experience i, and b (E) the accuracies of the untrained network (Lopez-Paz & Ranzato, NeurIPS 2017; Chaudhry et
al., ECCV 2018):

    average accuracy   A   = 1/E     sum_j  R[E-1, j]
    forgetting         F   = 1/(E-1) sum_{j<E-1}  max_{j<=i<E-1} R[i, j] - R[E-1, j]
    backward transfer  BWT = 1/(E-1) sum_{j<E-1}  R[E-1, j] - R[j, j]
    forward transfer   FWT = 1/(E-1) sum_{j>0}    R[j-1, j] - b[j]

An accuracy that is not known (NaN: the test data could not be had any more, or the experience not be known yet) is left
out of these means. Of a score that is better the lower it is, such as RMSE, R is the matrix of its negatives:
forgetting is what was lost, and transfer what was gained, whatever the score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict, final

from bayesdual.measures.answers import Measured
from bayesdual.measures.calibration import Bin

Matrix = Sequence[Sequence[float]]
"""Accuracies, or another score, a row after each experience, a column for each experience that is evaluated."""


class Score(NamedTuple):
    """What is measured of each experience.

    Attributes:
        key: Its name among measures and results.
        name: What people call it.
        lower_is_better: As of an error.
    """

    key: str
    name: str
    lower_is_better: bool = False

    def gains(self, matrix: Matrix) -> Matrix:
        """The matrix, so that higher is better."""
        return [[-value for value in row] for row in matrix] if self.lower_is_better else matrix


ACCURACY = Score("accuracy", "accuracy")
RMSE = Score("rmse", "RMSE", lower_is_better=True)
SCORES = {
    score.key: score
    for score in (ACCURACY, RMSE, Score("mae", "MAE", True), Score("nll", "NLL", True), Score("r2", "R2"))
}
"""Those that are known, by key."""


@final
class Evaluation(TypedDict):
    """What is measured of a stream of classes.

    Attributes:
        accuracy: Of each experience; NaN where no example was seen.
        nll: Of all examples, nats.
        ece: Of all examples.
        measures: All measures of all examples, as :func:`bayesdual.measures.measured` names them.
        confusion: How many examples of each class (rows) were taken for which (columns).
        reliability: Of each bin of confidence that is not empty, see :func:`bayesdual.measures.reliability`.
        groups: The same measures of the experiences that are ``old``, ``new`` and ``unseen``, of those that there are;
            and entropies of data of another kind (``ood``), whose labels mean nothing.
        told_apart: How well ``unseen`` experiences, and data of another kind (``ood``), are told from those learned, as
            :func:`bayesdual.measures.told_apart` names it.
    """

    accuracy: list[float]
    nll: float
    ece: float
    measures: Measured
    confusion: list[list[int]]
    reliability: list[Bin]
    groups: dict[str, Measured]
    told_apart: dict[str, Measured]


@final
class NumberEvaluation(TypedDict):
    """What is measured of a stream of numbers.

    Attributes:
        score: What ``scores`` are, by the key of a :class:`Score`.
        scores: Of each experience; NaN where no example was seen.
        nll: Of all examples, nats.
        measures: All measures of all examples, as :class:`bayesdual.measures.NumberMetric` names them.
        groups: As in :class:`Evaluation`.
        told_apart: Nothing: there is no entropy of classes to tell by.
    """

    score: str
    scores: list[float]
    nll: float
    measures: Measured
    groups: dict[str, Measured]
    told_apart: dict[str, Measured]


def scores_of(evaluation: Evaluation | NumberEvaluation) -> list[float]:
    """The score of each experience: accuracies, of classes."""
    return evaluation["accuracy"] if "accuracy" in evaluation else evaluation["scores"]


def accuracy_of_classes(confusion: Sequence[Sequence[int]]) -> list[float]:
    """The share of each class's examples that is right; NaN of a class without examples.

    Args:
        confusion: How many examples of each class (rows) were taken for which (columns).
    """
    return [row[c] / sum(row) if sum(row) else math.nan for c, row in enumerate(confusion)]


def average_accuracy(accuracy: Matrix) -> float:
    """Mean of the last row of the accuracy matrix: accuracy over experiences, after the last row's experience."""
    return _mean(accuracy[-1])


def average_seen_accuracy(accuracy: Matrix) -> float:
    """Mean of the last row over the experiences learned so far (as many as there are rows)."""
    return _mean(accuracy[-1][: len(accuracy)])


def forgetting(accuracy: Matrix) -> float:
    """Mean drop from the best accuracy an experience ever had to its last; 0 for a single experience."""
    last = len(accuracy) - 1
    return _mean((best(accuracy[:last], j) - accuracy[last][j] for j in range(last)), of_none=0.0)


def backward_transfer(accuracy: Matrix) -> float:
    """Mean change of an experience's accuracy from just after it was learned to the end; 0 for one experience."""
    last = len(accuracy) - 1
    return _mean((accuracy[last][j] - accuracy[j][j] for j in range(last)), of_none=0.0)


def forward_transfer(accuracy: Matrix, untrained: Sequence[float]) -> float:
    """Mean gain over the untrained network just before an experience is learned; 0 for one experience.

    Args:
        accuracy: Accuracy matrix (E x E).
        untrained: Accuracy of the untrained network on each experience that was known when it began.
    """
    known = range(1, min(len(accuracy), len(untrained)))
    return _mean((accuracy[j - 1][j] - untrained[j] for j in known), of_none=0.0)


def best(accuracy: Matrix, experience: int) -> float:
    """The best known accuracy on an experience since it was learned; NaN if none is known."""
    known = [row[experience] for row in accuracy[experience:] if not math.isnan(row[experience])]
    return max(known, default=math.nan)


def _mean(values: Iterable[float], of_none: float = math.nan) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else of_none
