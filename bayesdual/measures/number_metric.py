"""What is measured of predicted numbers, of a stream and of its experiences, in one pass.

RMSE  sqrt(mean (y - mu)^2)      MAE  mean |y - mu|      NLL  mean -log p(y)
R2    1 - sum (y - mu)^2 / sum (y - mean y)^2, of what is measured; NaN where that does not vary
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from bayesdual.measures.answers import Measured
from bayesdual.measures.continual import NumberEvaluation, Score


class NumberMetric(Metric):
    """A score of each experience, and all measures of the whole stream and of its old, new and unseen experiences.

    State is a few numbers of each example, which ranks (and shards of unequal size) join.

    Args:
        nll: The negative log-likelihood, nats, shape (B,), of predictions (B, 1) and targets (B,).
        score: What is measured of each experience.
        n_experiences: Of the stream.
        learned: The experience that was learned last, counted from 0; -1: none. None: old, new and unseen ones are not
            told apart.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(
        self, nll: Callable[[Tensor, Tensor], Tensor], score: Score, n_experiences: int, learned: int | None = None
    ) -> None:
        super().__init__()
        self.nll = nll
        self.score = score
        self.n_experiences = n_experiences
        self.learned = learned
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.rows.append(torch.empty(0, 4, dtype=torch.float64))  # a rank that gets no batch is joined by it

    def update(self, predicted: Tensor, y: Tensor, experience: int, epistemic: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            predicted: Predictions, shape (B, 1).
            y: Targets, shape (B,).
            experience: Index of the experience that the batch is from.
            epistemic: Not used: there is no entropy of classes.
        """
        place = torch.full_like(y, experience, dtype=torch.float64)
        mean = predicted.squeeze(1).double()
        self.rows.append(torch.stack([place, y.double(), mean, self.nll(predicted, y).double()], 1))

    def compute(self) -> NumberEvaluation:
        """Returns what the batches so far come to, of all ranks together."""
        rows, n = dim_zero_cat(self.rows), self.n_experiences
        place, of_all = rows[:, 0], _measured(rows)
        last = n - 1 if self.learned is None else self.learned
        groups = {"old": place < last, "new": place == last, "unseen": place > last}
        return {
            "score": self.score.key,
            "scores": [_measured(rows[place == j])[self.score.key] for j in range(n)],
            "nll": of_all["nll"],
            "measures": of_all,
            "groups": {name: _measured(rows[m]) for name, m in groups.items() if self.learned is not None and m.any()},
            "told_apart": {},
        }


def _measured(rows: Tensor) -> Measured:
    """RMSE, MAE, NLL and R2 of some examples."""
    _, y, mean, nll = rows.unbind(1)
    square, spread = (y - mean).square(), (y - y.mean()).square()
    return {
        "rmse": float(square.mean().sqrt()),
        "mae": float((y - mean).abs().mean()),
        "nll": float(nll.mean()),
        "r2": float(1 - square.sum() / spread.sum()) if spread.sum() > 0 else float("nan"),
    }
