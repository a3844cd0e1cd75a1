"""What is measured of the answers to a stream, of its experiences and of data of another kind, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from bayesdual.measures.answers import Answers, answers_of, measured, told_apart
from bayesdual.measures.calibration import reliability
from bayesdual.measures.continual import Evaluation

ENTROPIES = ("entropy", "aleatoric", "epistemic")


class StreamMetric(Metric):
    """Accuracy of each experience, and all measures of the whole stream and of its old, new and unseen experiences.

    State is a few numbers of each example, which ranks (and shards of unequal size) join.

    Args:
        n_experiences: Of the stream; what comes as a later one is data of another kind, whose labels mean nothing.
        learned: The experience that was learned last, counted from 0; -1: none. None: old, new and unseen ones are not
            told apart.
    """

    full_state_update = False
    n_classes: Tensor
    rows: list[Tensor]

    def __init__(self, n_experiences: int, learned: int | None = None) -> None:
        super().__init__()
        self.n_experiences = n_experiences
        self.learned = learned
        self.add_state("n_classes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="max")
        self.add_state("rows", [], dist_reduce_fx="cat")
        columns = 2 + len(Answers._fields)
        self.rows.append(torch.empty(0, columns, dtype=torch.float64))  # a rank that gets no batch is joined by it

    def update(self, probabilities: Tensor, y: Tensor, experience: int, epistemic: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            probabilities: Predicted class probabilities, shape (B, C).
            y: Labels, shape (B,).
            experience: Index of the experience that the batch is from.
            epistemic: See :func:`bayesdual.measures.answers_of`.
        """
        known = y if experience < self.n_experiences else torch.zeros_like(y)
        kept = answers_of(probabilities, known, epistemic)
        place = torch.full_like(kept.confidence, experience)
        pair = known * probabilities.shape[1] + probabilities.argmax(1)  # of a class and the class it was taken for
        self.n_classes.fill_(probabilities.shape[1])
        self.rows.append(torch.stack([place, pair.double(), *kept], 1))

    def compute(self) -> Evaluation:
        """Returns what the batches so far come to, of all ranks together."""
        place, pair, *columns = dim_zero_cat(self.rows).unbind(1)
        kept, n, learned = Answers(*columns), self.n_experiences, self.learned
        of_all = measured(kept.where(place < n))
        n_classes = int(self.n_classes)
        pairs = pair[place < n].long().bincount(minlength=n_classes**2)
        last = n - 1 if learned is None else learned
        seen, unseen = place <= last, (place > last) & (place < n)
        groups = {} if learned is None else {"old": place < last, "new": place == last, "unseen": unseen}
        others = {"unseen": unseen, "ood": place >= n}
        measures_of = {name: measured(kept.where(mask)) for name, mask in groups.items() if mask.any()}
        if groups and others["ood"].any():  # labels mean nothing there
            of_ood = measured(kept.where(others["ood"]))
            measures_of["ood"] = {name: of_ood[name] for name in ENTROPIES if name in of_ood}
        return {
            "accuracy": [float(kept.right[place == j].mean()) for j in range(n)],
            "nll": of_all["nll"],
            "ece": of_all["ece"],
            "measures": of_all,
            "confusion": pairs.view(n_classes, n_classes).tolist(),
            "reliability": reliability(*kept.where(place < n)[:2]),
            "groups": measures_of,
            "told_apart": {
                name: told_apart(kept.where(seen), kept.where(mask))
                for name, mask in others.items()
                if mask.any() and seen.any()
            },
        }
