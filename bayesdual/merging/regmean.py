"""RegMean: the linear layer whose outputs are closest to those of each model's layer, on that model's own inputs.

    W = W_0 + alpha (sum_t s_t A_t)^-1 sum_t s_t A_t (W_t - W_0),    A_t = sum of a a^T over the inputs of the layer

the bias as the last column of W. Entries of A off its diagonal are multiplied by a factor of at most 1. Along inputs
that no model has, and for parameters that are in no layer with a known A, it is the average weighted by s.

Source: Jin et al., "Dataless knowledge fusion by merging weights of language models", ICLR 2023 (alpha = 1).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayesdual.merging.average import average
from bayesdual.merging.block import Block, shrunk
from bayesdual.posterior import KroneckerFactors

SMALL = 1e-7  # of the mean of A's diagonal: what is added to it so that it has an inverse


def regmean(block: Block, off_diagonal: float = 0.9) -> Tensor:
    """The equation above; A_t is the input factor of the curvature.

    Args:
        block: Weights to merge, with Kronecker factors; without, they are averaged.
        off_diagonal: The factor of entries off the diagonal, in 0..1; 0.9 is the paper's.

    Returns:
        theta, of the shape of the base.

    Raises:
        ValueError: ``off_diagonal`` is not in 0..1.
    """
    if not all(isinstance(curvature, KroneckerFactors) for curvature in block.curvatures):
        return average(block)
    mean = average(block)
    target = average(replace(block, alpha=1.0))
    total = torch.zeros(mean.shape[1], mean.shape[1], dtype=torch.float64, device=mean.device)
    push = torch.zeros_like(mean, dtype=torch.float64)
    for factors, model in zip(block.curvatures, block.models, strict=True):
        assert isinstance(factors, KroneckerFactors)
        a = shrunk(factors.inputs.double(), off_diagonal)
        total += a
        push += (model - target).double() @ a
    total.diagonal().add_(SMALL * float(total.diagonal().mean()) or 1.0)
    return mean + block.alpha * torch.linalg.solve(total, push, left=False).to(mean)
