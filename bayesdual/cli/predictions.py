"""What ``predict`` writes and says of what the learner returned: batches of each experience."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bayesdual.likelihoods import Likelihood
from bayesdual.measures import Evaluation, NumberEvaluation

Outputs = Sequence[Sequence[dict[str, Any]]]
"""Of each experience the batches, as :meth:`bayesdual.learner.Learner.predict_step` returns them."""


def by_experience(outputs: list[Any]) -> Outputs:
    """What Lightning returns, which has no list around the batches of a single experience."""
    return outputs if outputs and isinstance(outputs[0], list) else [outputs]


def evaluation_of(outputs: Outputs, likelihood: Likelihood) -> Evaluation | NumberEvaluation:
    """The measures of predictions."""
    metric = likelihood.metric(len(outputs))
    said = "probabilities" if likelihood.has_classes else "mean"
    for i, batches in enumerate(outputs):
        for batch in batches:
            metric.update(batch[said], batch["y"], i, batch.get("epistemic"))
    return metric.compute()


def write_numbers(path: Path, outputs: Outputs) -> None:
    """Writes a row an example whose target is a number: experience, target and prediction, as CSV."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["experience", "target", "prediction"])
        for i, batches in enumerate(outputs):
            for batch in batches:
                for y, mean in zip(batch["y"].tolist(), batch["mean"].squeeze(1).tolist(), strict=True):
                    writer.writerow([i + 1, f"{y:.6g}", f"{mean:.6g}"])


def write_predictions(path: Path, outputs: Outputs, classes: Sequence[str] = ()) -> None:
    """Writes a row an example: experience, label, prediction, its probability, and the entropy in nats, as CSV.

    Where the weights are uncertain, the entropy is there in two parts, too: the data's and the weights'. Where classes
    have names, those of label and prediction come last.

    Args:
        path: The file.
        outputs: What the learner returned.
        classes: Names of classes, by label; a class beyond them is called by its number.
    """
    split = outputs[0][0]["epistemic"] is not None
    name_of = dict(enumerate(classes)).get
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        parts = ["aleatoric", "epistemic"] if split else []
        names = ["label_name", "prediction_name"] if classes else []
        writer.writerow(["experience", "label", "prediction", "probability", "entropy", *parts, *names])
        for i, batches in enumerate(outputs):
            for batch in batches:
                p = batch["probabilities"]
                probability, prediction = p.max(dim=1)
                numbers = [probability, torch.special.entr(p).sum(1)]
                if split:
                    numbers += [numbers[1] - batch["epistemic"], batch["epistemic"]]
                rows = torch.stack(numbers, 1).tolist()
                for y, k, row in zip(batch["y"].tolist(), prediction.tolist(), rows, strict=True):
                    called = [name_of(y, y), name_of(k, k)] if classes else []
                    writer.writerow([i + 1, y, k, *(f"{value:.6f}" for value in row), *called])
