"""Finds the few numbers of a scaling of logits that give the least NLL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def least_nll(
    scaled: Callable[[], Tensor],
    numbers: Sequence[Tensor],
    y: Tensor,
    weights: Tensor | None = None,
    penalty: Callable[[], Tensor] | None = None,
) -> Sequence[Tensor]:
    """Minimises the weighted mean NLL by L-BFGS.

    Args:
        scaled: Logits (B, C) by the numbers as they are.
        numbers: What is changed, in place.
        y: Labels, shape (B,).
        weights: Of examples, shape (B,).
        penalty: Added to the NLL.

    Returns:
        The numbers, without gradients.

    Raises:
        ValueError: There are no examples.
    """
    if not len(y):
        raise ValueError("there are no examples to fit a scaling of the logits to.")
    shares = torch.full((len(y),), 1 / len(y)) if weights is None else weights / weights.sum()
    optimizer = torch.optim.LBFGS(
        [number.requires_grad_() for number in numbers], max_iter=200, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (shares.to(y.device) * F.cross_entropy(scaled(), y, reduction="none")).sum()
        loss = loss if penalty is None else loss + penalty()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return [number.detach() for number in numbers]
