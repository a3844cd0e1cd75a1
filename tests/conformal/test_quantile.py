"""The quantile by its definition, its coverage by enumeration, and what it refuses."""

import math

import pytest
import torch

from bayesdual.conformal import calibration_examples_needed, conformal_quantile


@pytest.mark.parametrize("n", [9, 19, 29, 69, 88, 99])
@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.3, 0.5, 0.7])
def test_rank_is_that_of_the_definition_whatever_floating_point_says(n, alpha):
    scores = torch.arange(1, n + 1).double()[torch.randperm(n)]
    tenths = round(10 * alpha)
    assert conformal_quantile(scores, alpha) == -(-(10 - tenths) * (n + 1) // 10)


def test_coverage_over_all_orders_is_at_least_the_target_where_the_plain_quantile_is_below():
    """Of n + 1 exchangeable scores each is the new one equally often (the reference code's first error)."""
    for n, alpha in ((88, 0.1), (20, 0.1), (9, 0.1), (10, 0.25)):
        ours = plain = 0
        for new in range(n + 1):
            rest = torch.tensor([s for s in range(n + 1) if s != new]).double()
            ours += new <= conformal_quantile(rest, alpha)
            plain += new <= float(rest.sort().values[math.floor((1 - alpha) * n) - 1])
        assert ours / (n + 1) >= 1 - alpha > plain / (n + 1)
        assert ours / (n + 1) < 1 - alpha + 1 / (n + 1) + 1e-9


def test_weights_count_as_copies_do():
    scores, copies = torch.tensor([0.3, -1.0, 2.0, 0.9, 5.0]), torch.tensor([40, 10, 30, 15, 25])
    weighted = [conformal_quantile(scores, a, copies) for a in (0.3, 0.5, 0.9 - 1e-3)]
    total = 120 * 6 / 5  # and a new one that stands for their mean
    order = sorted(zip(scores.tolist(), copies.tolist(), strict=True))
    for alpha, q in zip((0.3, 0.5, 0.9 - 1e-3), weighted, strict=True):
        reached = [sum(w for _, w in order[: i + 1]) >= (1 - alpha) * total for i in range(5)]
        assert q == pytest.approx(order[reached.index(True)][0])
    same = torch.full((30,), 7.0)
    many = torch.rand(30, generator=torch.Generator().manual_seed(0))
    for alpha in (0.1, 0.3, 0.9):
        assert conformal_quantile(many, alpha, same) == pytest.approx(conformal_quantile(many, alpha))


def test_what_it_refuses_is_said_in_a_sentence():
    scores = torch.rand(8)
    for alpha in (0, 1, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="alpha is .*: it is the share of errors that is allowed"):
            conformal_quantile(scores, alpha)
    with pytest.raises(ValueError, match="there are 8 calibration examples, but alpha 0.1 needs at least 9"):
        conformal_quantile(scores, 0.1)
    assert calibration_examples_needed(0.05) == 19
    assert math.isfinite(conformal_quantile(torch.rand(9), 0.1))
    with pytest.raises(ValueError, match="1 of 8 calibration scores are not numbers"):
        conformal_quantile(torch.tensor([math.nan, *range(7)]), 0.5)
    with pytest.raises(ValueError, match="weights of calibration examples are positive"):
        conformal_quantile(scores, 0.5, torch.zeros(8))
