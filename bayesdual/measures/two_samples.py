"""Whether two samples are of one distribution: the maximum mean discrepancy, tested by permutation.

With a kernel k(a, b) = exp(-|a - b|^2 / (2 h^2)), h the median distance of the pooled sample,

    MMD^2 = mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j) - 2 mean over i, j of k(x_i, y_j)

without bias. The p-value is the share of permutations of the pooled sample, the one that was seen among them, whose
MMD^2 is as large: whatever the distributions, p <= a with probability a at most if they are the same.

Source: Gretton et al., "A kernel two-sample test", JMLR 2012.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

PERMUTATIONS = 499


class TwoSamples(NamedTuple):
    """What the test says.

    Attributes:
        mmd2: MMD^2; near 0, and below as often as above, where the distributions are the same.
        p: The p-value, at least 1 / (permutations + 1).
    """

    mmd2: float
    p: float


def mmd_test(x: Tensor, y: Tensor, generator: Generator, permutations: int = PERMUTATIONS) -> TwoSamples:
    """Tests whether two samples are of one distribution.

    Args:
        x: A sample, shape (n, D).
        y: Another, shape (m, D).
        generator: Source of randomness, on the CPU.
        permutations: How many are drawn.

    Raises:
        ValueError: A sample has less than two examples.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"the samples have {n} and {m} examples: give at least two of each.")
    pooled = torch.cat([x, y]).double().cpu()
    squares = torch.cdist(pooled, pooled).square()
    h2 = squares[squares > 0].median() if (squares > 0).any() else torch.ones(())
    k = torch.exp(-squares / (2 * h2))
    chosen = torch.zeros(permutations + 1, n + m, dtype=torch.float64)
    chosen[0, :n] = 1
    for row in range(1, permutations + 1):
        chosen[row, torch.randperm(n + m, generator=generator)[:n]] = 1
    rest = 1 - chosen
    to_chosen = chosen @ k
    within = ((to_chosen * chosen).sum(1) - n) / (n * (n - 1))
    within_rest = (((k.sum(0) - to_chosen) * rest).sum(1) - m) / (m * (m - 1))
    mmd2 = within + within_rest - 2 * (to_chosen * rest).sum(1) / (n * m)
    return TwoSamples(float(mmd2[0]), float((mmd2 >= mmd2[0] - 1e-12).double().mean()))
