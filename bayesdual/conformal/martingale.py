"""An alarm when data stop being exchangeable: the Simple Jumper martingale over conformal p-values.

With s_1, s_2, .. nonconformity scores in their order, and u_t uniform on [0, 1],

    p_t = (#{i <= t : s_i > s_t} + u_t #{i <= t : s_i = s_t}) / t

are independent and uniform while the data are exchangeable. Three bets e in {-1, 0, 1} share a capital of 1, which
moves between them at the rate J:

    C_e <- ((1 - J) C_e + J/3 sum of C) (1 + e (p_t - 1/2)),      S_t = sum_e C_e

S is a martingale then, so that P(S ever reaches c) <= 1/c (Ville): an alarm at S >= 100 is false in at most 1 of 100
streams, however long these are.

Source: Vovk et al., "Retrain or not retrain: conformal test martingales for change-point detection", COPA 2021.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

import torch
from torch import Generator, Tensor

JUMP = 0.01
BETS = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)


def p_values(scores: Tensor, seen: Tensor | None = None, generator: Generator | None = None) -> Tensor:
    """Conformal p-values of scores, each among those until it.

    Args:
        scores: In their order, shape (n,).
        seen: Scores of before, in any order, shape (m,).
        generator: Source of randomness, on the CPU.

    Returns:
        Shape (n,), float64.
    """
    known = [] if seen is None else sorted(seen.tolist())
    result = []
    for s, u in zip(scores.tolist(), torch.rand(len(scores), generator=generator).tolist(), strict=True):
        insort(known, s)
        least, greatest = bisect_left(known, s), bisect_right(known, s)
        result.append((len(known) - greatest + u * (greatest - least)) / len(known))
    return torch.tensor(result, dtype=torch.float64)


def jumper_martingale(p: Tensor, jump: float = JUMP) -> Tensor:
    """Logarithm (base 10) of S after each p-value.

    Args:
        p: p-values in their order, shape (n,).
        jump: J, between 0 and 1.

    Returns:
        Shape (n,), float64. The alarm at S >= 100 is at 2.
    """
    shares, log_s, result = torch.full((3,), 1 / 3, dtype=torch.float64), 0.0, []
    for value in p.double():
        shares = ((1 - jump) * shares + jump / 3) * (1 + BETS * (value - 0.5))  # of a capital of 1
        growth = shares.sum()
        log_s += float(growth.log10())
        shares = shares / growth
        result.append(log_s)
    return torch.tensor(result, dtype=torch.float64)


def alarm(log_s: Tensor, level: float = 2.0) -> int | None:
    """Index of the first value that reaches a level; None if none does."""
    places = torch.nonzero(log_s >= level)
    return int(places[0]) if len(places) else None
