"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from bayesdual import measures
from bayesdual.inspection.figures import groups_of, known_mean, span

VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
WHOLE = 30  # experiences of which each has its column
COLUMNS = 10  # of the accuracy matrix, in 80 characters
NAMES = {
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
    "nll": "NLL",
    "ece": "ECE",
    "adaptive_ece": "adaptive ECE",
    "brier": "Brier",
    "aurc": "AURC",
    "entropy": "entropy",
    "aleatoric": "of the data",
    "epistemic": "of the weights",
}
KINDS = {"unseen": "unseen, by entropy", "ood": "other data, by entropy"}


def summary(results: dict[str, Any]) -> str:
    """The numbers that matter, in lines of at most 80 characters."""
    transfer, score = results["forward_transfer"], score_of(results)
    last = {"ECE": f"{results['ece']:.4f}"} if "ece" in results else {"R2": f"{results['r2']:.4f}"}
    numbers = {
        f"average {score.name}": f"{results[f'average_{score.key}']:.4f}",
        "forgetting": f"{results['forgetting']:.4f}",
        "backward transfer": f"{results['backward_transfer']:+.4f}",
        "forward transfer": "-" if transfer is None else f"{transfer:+.4f}",
        "NLL": f"{results['nll']:.4f}",
        **last,
    }
    cells = [f"{name:<18}{value:>8}" for name, value in numbers.items()]
    lines = [f"{left}    {right}" for left, right in zip(cells[::2], cells[1::2], strict=True)]
    seconds = {name: f"{results[f'seconds_{name}']:.1f}" for name in ("total", "training", "evaluation", "memory")}
    return "\n".join(
        [
            *lines,
            f"memory: {results['memory_size']} of {results['memory_budget']} exemplars",
            f"seconds: {seconds['total']} (training {seconds['training']}, evaluation {seconds['evaluation']}, "
            f"memory {seconds['memory']})",
        ]
    )


def score_of(results: Mapping[str, Any]) -> measures.Score:
    """What was measured of each experience, by results; those of before 0.3 say nothing, and have accuracies."""
    return measures.SCORES[results.get("score", "accuracy")]


def cell(value: float, score: measures.Score) -> str:
    """A score in about five characters."""
    if score == measures.ACCURACY or 0.01 <= abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


class Grouped(NamedTuple):
    """A matrix as it is read; of many experiences the means of several in place of each.

    Attributes:
        rows: Of each its name and values, those not learned yet NaN, and last the mean of those seen.
        columns: The names of the values.
        said: What is said of what is left out; begins with a colon.
    """

    rows: list[tuple[str, list[float]]]
    columns: list[str]
    said: str


def grouped(matrix: measures.Matrix) -> Grouped:
    """The matrix of a score, at most ``WHOLE`` experiences as they are, of more at most ten groups."""
    n = len(matrix[0])
    each = 1 if n <= WHOLE else -(-n // COLUMNS)
    groups = groups_of(n, each)
    ends = sorted({min(group[-1], len(matrix) - 1) for group in groups if group[0] < len(matrix)})
    rows = []
    for i in ends:
        means = [known_mean([matrix[i][j] for j in group if j <= i]) for group in groups]
        rows.append((str(i + 1), [*means, measures.average_seen_accuracy(matrix[: i + 1])]))
    names = [span(group).lstrip(" s") for group in groups]
    return Grouped(rows, [*names, "seen"], f": means of {each}, every {each}th row" if each > 1 else "")


def accuracy_tables(matrix: measures.Matrix, score: measures.Score = measures.ACCURACY) -> Iterator[Table]:
    """The matrix of a score for the terminal, ten experiences a table: bold where one had just been learned.

    Of more than ``WHOLE`` experiences one table of means.
    """
    n = len(matrix[0])
    if n > WHOLE:
        yield _means(grouped(matrix), score)
        return
    for first in range(0, n, COLUMNS):
        block = range(first, min(first + COLUMNS, n))
        table = Table(box=box.SIMPLE_HEAD, padding=0)
        table.add_column("after")
        for j in block:
            table.add_column(str(j + 1), justify="right", min_width=5)
        if n - 1 in block:
            table.add_column("seen", justify="right", min_width=5)
        for i, row in enumerate(matrix):
            cells = [_shown(row[j], score, new=i == j) if j <= i else "-" for j in block]
            if n - 1 in block:
                cells.append(cell(measures.average_seen_accuracy(matrix[: i + 1]), score))
            table.add_row(str(i + 1), *cells)
        yield table


def _means(of: Grouped, score: measures.Score) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, title=of.said.removeprefix(": "))
    table.add_column("after")
    for name in of.columns:
        table.add_column(name, justify="right", min_width=5)
    for name, (*values, seen) in of.rows:
        table.add_row(name, *(_shown(value, score, new=False) for value in values), cell(seen, score))
    return table


def _shown(value: float, score: measures.Score, new: bool) -> str:
    """A cell of the matrix, on its colour where a terminal has colours."""
    if math.isnan(value):
        return "-"
    weight = "bold " if new else ""
    look = f"{weight}{'{} on {}'.format(*heat(value))}" if score == measures.ACCURACY else weight.strip()
    return f"[{look}]{cell(value, score)}[/]" if look else cell(value, score)


def heat(accuracy: float) -> tuple[str, str]:
    """The colour of a text, and of what is behind it, as in the figure of the matrix: viridis, from 0 to 1."""
    place = min(max(accuracy, 0.0), 1.0) * (len(VIRIDIS) - 1)
    k = min(int(place), len(VIRIDIS) - 2)
    mixed = (round(a + (place - k) * (b - a)) for a, b in zip(VIRIDIS[k], VIRIDIS[k + 1], strict=True))
    return "#ffffff" if accuracy < 0.6 else "#000000", "#{:02x}{:02x}{:02x}".format(*mixed)


def evaluation_table(evaluation: measures.Evaluation | measures.NumberEvaluation, stream: str) -> Table:
    """Score of each experience of a stream, their mean, and the measures of all, for the terminal."""
    scores, name = measures.scores_of(evaluation), score_of(evaluation).name
    table = Table("experience", f"{name} on the {stream} stream", box=box.SIMPLE_HEAD, padding=0)
    table.columns[1].justify = "right"
    known = {str(j + 1): a for j, a in enumerate(scores) if not math.isnan(a)}
    for experience, a in known.items():
        table.add_row(experience, f"{a:.4f}", end_section=len(table.rows) == len(known) - 1)
    table.add_row("average", f"{sum(known.values()) / max(1, len(known)):.4f}")
    for key, name in NAMES.items():
        if key in evaluation["measures"]:
            table.add_row(name, f"{evaluation['measures'][key]:.4f}")
    for kind, apart in evaluation["told_apart"].items():
        table.add_row(f"{KINDS[kind]}: AUROC", f"{apart['auroc_entropy']:.4f}")
        table.add_row(f"{KINDS[kind]}: FPR95", f"{apart['fpr95_entropy']:.4f}")
    return table
