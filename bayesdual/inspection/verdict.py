"""What a matrix of accuracies, or of another score, says of forgetting, in a sentence.

    kept = sum_j a[T, j] / sum_j max_{i >= j} a[i, j],    lost on j = max_{i >= j} a[i, j] - a[T, j]

over the experiences j learned, T being the last, but for those whose accuracy is not known (NaN). Of an error, which is
lower the better it is, lost is how much it has risen since it was lowest.
"""

from __future__ import annotations

import math

from bayesdual.measures import ACCURACY, Matrix, Score, best

NOTHING = 0.005  # of accuracy, that is no loss to speak of


def lost(matrix: Matrix, score: Score = ACCURACY) -> list[float]:
    """How much worse each experience learned is than it was at its best; NaN where that is not known."""
    gains = score.gains(matrix)
    return [best(gains, j) - gains[-1][j] for j in range(len(gains))]


def verdict(matrix: Matrix, score: Score = ACCURACY) -> str:
    """How much is kept, and where most was lost, in at most 80 characters.

    Args:
        matrix: The matrix of the score, a row for each experience learned, and at least as many columns.
        score: What was measured.
    """
    if len(matrix) == 1:
        return "one experience is learned: there is nothing yet to forget"
    gone = {j: loss for j, loss in enumerate(lost(matrix, score)) if not math.isnan(loss)}
    if score != ACCURACY:
        return _of_another(gone, score)
    highest = sum(matrix[-1][j] + loss for j, loss in gone.items())
    kept = 1 - sum(gone.values()) / highest if highest else 1.0
    most = max(gone, key=gone.__getitem__)
    rest = f"lost most on experience {most + 1} ({gone[most]:.3f})" if gone[most] >= NOTHING else "lost nothing"
    return f"kept {kept:.1%} of its best on each experience, {rest}"


def _of_another(gone: dict[int, float], score: Score) -> str:
    """The same of a score that has no share kept, as its zero or its best means nothing."""
    most = max(gone, key=gone.__getitem__)
    changed = "rose" if score.lower_is_better else "fell"
    if gone[most] <= 0:
        return f"{score.name} is at its best on each experience: nothing was lost"
    mean = sum(gone.values()) / len(gone)
    return f"{score.name} {changed} by {mean:.3g} in the mean, most on experience {most + 1} (by {gone[most]:.3g})"
