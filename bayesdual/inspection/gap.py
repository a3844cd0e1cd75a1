"""The stability gap: how the old is known while the new is learned, and the dip just after a boundary.

Evaluations between experiences do not show it (De Lange, van de Ven and Tuytelaars, ICLR 2023). With a(s) the mean
accuracy on the experiences learned before, after s steps of the next one:

    gap = a(0) - min_s a(s),    of which  a(0) - a(last s)  is lost for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from bayesdual.inspection.figures import KEPT_COLOR, LOST_COLOR, WITH_NUMBERS, new_figure
from bayesdual.learner import Learner
from bayesdual.models import evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 1000  # of all old experiences together, evenly spread
Rows = Sequence[Mapping[str, Any]]
"""``History.on_old``."""


@torch.no_grad()
def accuracy_on_old(learner: Learner) -> float:
    """Mean accuracy, by the mean of the weights, on examples of the evaluation data of all experiences before."""
    stream = learner.stream
    first = stream.n_learned_before  # the data of streams before this one may be gone
    old = stream.evaluation_data(stream.evaluate_on)[: stream.experience - first]
    found = []
    with evaluating(learner.network):
        for data in old:
            rows = torch.linspace(0, len(data.y) - 1, min(len(data.y), max(1, EXAMPLES // len(old)))).long()
            logits = learner(data.inputs(rows).to(learner.device), data.tasks[rows].to(learner.device))
            said = learner.likelihood.predicted(logits).argmax(1).cpu()
            found.append(float((said == data.y[rows]).double().mean()))
    return sum(found) / len(found)


def measure(learner: Learner, step: int) -> float | None:
    """Adds a row to the history, and returns the accuracy; does nothing where no experience was learned before."""
    stream, history = learner.stream, learner.history
    if stream.experience == stream.n_learned_before:
        return None
    with history.timing("evaluation"):
        old = accuracy_on_old(learner)
    history.on_old.append({"step": step, "experience": stream.experience + 1, "old": old})
    return old


def gaps(on_old: Rows) -> dict[int, float]:
    """How far accuracy on the old dipped while each experience (its number) was learned."""
    found: dict[int, float] = {}
    for k in dict.fromkeys(row["experience"] for row in on_old):
        mine = [row["old"] for row in on_old if row["experience"] == k]
        found[k] = mine[0] - min(mine)
    return found


def gap_figure(on_old: Rows) -> Figure:
    """Accuracy on the old by training step; a dotted line where an experience begins, the deepest dip named."""
    figure = new_figure(5.8, 3)
    axes = figure.subplots()
    deepest = max(gaps(on_old).items(), key=lambda item: item[1])
    experiences = list(dict.fromkeys(row["experience"] for row in on_old))
    few = len(experiences) <= WITH_NUMBERS
    for k in experiences:
        mine = [row for row in on_old if row["experience"] == k]
        steps, old = [row["step"] for row in mine], [row["old"] for row in mine]
        if few:
            axes.axvline(steps[0], color="#bbbbbb", lw=0.8, ls=":")
        axes.plot(steps, old, "-", color=KEPT_COLOR, lw=1.3)
        if k == deepest[0] and deepest[1] > 0:
            at = old.index(min(old))
            axes.plot(steps[at], old[at], "o", color=LOST_COLOR)
            axes.set_title(f"deepest dip: {deepest[1]:.3f}, in experience {k}", loc="left", fontsize=9)
    axes.set(
        xlabel=f"training step{'; dotted: an experience begins' * few}", ylabel="accuracy on the old", ylim=(0, 1.02)
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure
