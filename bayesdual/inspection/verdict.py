"""What an accuracy matrix says of forgetting, in a sentence.

    kept = sum_j a[T, j] / sum_j max_{i >= j} a[i, j],    lost on j = max_{i >= j} a[i, j] - a[T, j]

over the experiences j learned, T being the last.
"""

from __future__ import annotations

from bayesdual.measures import Matrix

NOTHING = 0.005  # of accuracy, that is no loss to speak of


def lost(matrix: Matrix) -> list[float]:
    """How much accuracy on each experience learned is gone since it was best."""
    return [max(row[j] for row in matrix[j:]) - matrix[-1][j] for j in range(len(matrix))]


def verdict(matrix: Matrix) -> str:
    """How much is kept, and where most was lost, in at most 80 characters.

    Args:
        matrix: The accuracy matrix, a row for each experience learned, and at least as many columns.
    """
    if len(matrix) == 1:
        return "one experience is learned: there is nothing yet to forget"
    gone = lost(matrix)
    best = sum(now + loss for now, loss in zip(matrix[-1], gone, strict=False))
    kept = 1 - sum(gone) / best if best else 1.0
    most = max(range(len(gone)), key=gone.__getitem__)
    rest = f"lost most on experience {most + 1} ({gone[most]:.3f})" if gone[most] >= NOTHING else "lost nothing"
    return f"kept {kept:.1%} of its best on each experience, {rest}"
