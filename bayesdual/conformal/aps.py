"""APS: labels from the likeliest down, until they add up.

    s(x, y) = sum of p(k | x) over labels k likelier than y  +  u p(y | x),      set(x) = {y : s(x, y) <= q}

with u uniform on [0, 1] for exact coverage; u = 1 errs on the side of larger sets. Sets grow where the network is
unsure. Of equal probabilities the first counts as likelier. Source: Romano, Sesia & Candes, NeurIPS 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor


def aps_scores(p: Tensor, u: Tensor | None = None) -> Tensor:
    """Nonconformity of each label.

    Args:
        p: Class probabilities, shape (B, C).
        u: A draw from [0, 1] for each example, shape (B,); None: 1.

    Returns:
        Shape (B, C).
    """
    ordered, labels = p.sort(dim=1, descending=True, stable=True)
    share = 1.0 if u is None else u[:, None]
    scores = ordered.cumsum(1) - (1 - share) * ordered
    return torch.empty_like(p).scatter_(1, labels, scores)
