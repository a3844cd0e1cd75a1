"""Systematic sampling by weight, in strata: every exemplar, and every class, is drawn as often as it should.

Exemplars in random order, class by class, take up a length of their weight each, and at even steps one is drawn:

    u ~ U(0, 1),   t_j = (j + u) / n  sum_i w_i;   drawn for each j = 0 .. n - 1: the i with
    sum_{k < i} w_k  <=  t_j  <  sum_{k <= i} w_k
"""

import torch
from torch import Generator, Tensor


def systematic_sample(y: Tensor, weights: Tensor, n: int, generator: Generator) -> Tensor:
    """Rows drawn in proportion to their weights, give or take one each, in random order.

    Args:
        y: What strata are of, such as labels, shape (M,).
        weights: Shape (M,), at least 0.
        n: How many to draw; of fewer rows, some several times.
        generator: Source of randomness, on the CPU.

    Returns:
        Shape (n,).
    """
    order = torch.randperm(len(y), generator=generator)
    order = order[y[order].argsort(stable=True)]
    until = weights[order].cumsum(0)
    steps = (torch.arange(n) + torch.rand((), generator=generator)) * (until[-1] / n)
    places = torch.searchsorted(until, steps).clamp_max(len(y) - 1)  # rounding
    return order[places[torch.randperm(n, generator=generator)]]
