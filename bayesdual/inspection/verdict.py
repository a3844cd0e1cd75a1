"""What a matrix of accuracies, or of another score, says of forgetting, in a sentence.

    kept = sum_j a[T, j] / sum_j max_{i >= j} a[i, j],    lost on j = max_{i >= j} a[i, j] - a[T, j]

over the experiences j learned, T being the last, but for those whose accuracy is not known (NaN). Of an error, which is
lower the better it is, lost is how much it has risen since it was lowest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bayesdual.inspection.figures import name_of
from bayesdual.measures import ACCURACY, Matrix, Score, best

NOTHING = 0.005  # of accuracy, that is no loss to speak of


def lost(matrix: Matrix, score: Score = ACCURACY) -> list[float]:
    """How much worse each experience learned is than it was at its best; NaN where that is not known."""
    gains = score.gains(matrix)
    return [best(gains, j) - gains[-1][j] for j in range(len(gains))]


def verdict(matrix: Matrix, score: Score = ACCURACY, classes: Sequence[str] = ()) -> str:
    """How much is kept, and where most was lost, in a sentence.

    Args:
        matrix: The matrix of the score, a row for each experience learned, and at least as many columns.
        score: What was measured.
        classes: Names of those of which most was lost.
    """
    if len(matrix) == 1:
        return "one experience is learned: there is nothing yet to forget"
    gone = {j: loss for j, loss in enumerate(lost(matrix, score)) if not math.isnan(loss)}
    if score != ACCURACY:
        return _of_another(gone, score)
    highest = sum(matrix[-1][j] + loss for j, loss in gone.items())
    kept = 1 - sum(gone.values()) / highest if highest else 1.0
    most = max(gone, key=gone.__getitem__)
    if gone[most] < NOTHING:
        return f"kept {kept:.1%} of its best; lost nothing"
    of = f"; of the classes, most on {' and '.join(classes)}" if classes else ""
    return f"kept {kept:.1%} of its best; lost most on experience {most + 1} ({gone[most]:.3f}){of}"


def lost_since(matrix: Matrix, score: Score = ACCURACY) -> dict[int, float]:
    """How much worse each older experience (its index) is than after the experience before; what is no worse is not."""
    if len(matrix) < 2:
        return {}
    *_, before, now = score.gains(matrix)
    return {j: before[j] - now[j] for j in range(len(matrix) - 1) if before[j] > now[j]}


def classes_lost(rows: Sequence[Sequence[float | None]], names: Sequence[str] | None = None) -> list[str]:
    """Names of the (at most two) classes whose accuracy has fallen most since it was best, the most first.

    Args:
        rows: Accuracy of each class after each experience; NaN, or None as in JSON, where not known.
        names: By label; None: their numbers.
    """
    if not rows:
        return []
    gone = {}
    for c, now in enumerate(rows[-1]):
        known = [a for row in rows if c < len(row) if (a := row[c]) is not None and not math.isnan(a)]
        if known and now is not None and max(known) - now >= NOTHING:  # no comparison holds for NaN
            gone[c] = max(known) - now
    return [name_of(c, names) for c in sorted(gone, key=lambda c: -gone[c])[:2]]


def _of_another(gone: dict[int, float], score: Score) -> str:
    """The same of a score that has no share kept, as its zero or its best means nothing."""
    most = max(gone, key=gone.__getitem__)
    changed = "rose" if score.lower_is_better else "fell"
    if gone[most] <= 0:
        return f"{score.name} is at its best on each experience: nothing was lost"
    mean = sum(gone.values()) / len(gone)
    return f"{score.name} {changed} by {mean:.3g} in the mean, most on experience {most + 1} (by {gone[most]:.3g})"
