"""What an accuracy matrix says of forgetting, in a sentence.

    kept = sum_j a[T, j] / sum_j max_{i >= j} a[i, j],    lost on j = max_{i >= j} a[i, j] - a[T, j]

over the experiences j learned, T being the last, but for those whose accuracy is not known (NaN).
"""

from __future__ import annotations

import math

from bayesdual.measures import Matrix, best

NOTHING = 0.005  # of accuracy, that is no loss to speak of


def lost(matrix: Matrix) -> list[float]:
    """How much accuracy on each experience learned is gone since it was best; NaN where that is not known."""
    return [best(matrix, j) - matrix[-1][j] for j in range(len(matrix))]


def verdict(matrix: Matrix) -> str:
    """How much is kept, and where most was lost, in at most 80 characters.

    Args:
        matrix: The accuracy matrix, a row for each experience learned, and at least as many columns.
    """
    if len(matrix) == 1:
        return "one experience is learned: there is nothing yet to forget"
    gone = {j: loss for j, loss in enumerate(lost(matrix)) if not math.isnan(loss)}
    highest = sum(matrix[-1][j] + loss for j, loss in gone.items())
    kept = 1 - sum(gone.values()) / highest if highest else 1.0
    most = max(gone, key=gone.__getitem__)
    rest = f"lost most on experience {most + 1} ({gone[most]:.3f})" if gone[most] >= NOTHING else "lost nothing"
    return f"kept {kept:.1%} of its best on each experience, {rest}"
