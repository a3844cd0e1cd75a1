"""RAPS: APS with a price on labels far down.

    s(x, y) = s_APS(x, y) + penalty max(0, rank(y) - free),      rank 1 the likeliest

Source: Angelopoulos et al., ICLR 2021.
"""

from __future__ import annotations

from torch import Tensor

from bayesdual.conformal.aps import aps_scores


def raps_scores(p: Tensor, u: Tensor | None = None, penalty: float = 0.01, free: int = 2) -> Tensor:
    """Nonconformity of each label.

    Args:
        p: Class probabilities, shape (B, C).
        u: As in :func:`bayesdual.conformal.aps_scores`.
        penalty: Price of each rank beyond the free ones.
        free: Number of ranks without a price.

    Returns:
        Shape (B, C).
    """
    rank = p.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
    return aps_scores(p, u) + penalty * (rank - free).clamp_min(0)
