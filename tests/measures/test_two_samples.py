"""The two-sample test by its equation, and that it is right as often as it says."""

import pytest
import torch

from bayesdual.measures import mmd_test


def draw(n, d, seed, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_discrepancy_is_that_of_the_equation():
    x, y = draw(7, 3, 0), draw(5, 3, 1, 0.5)
    distances = torch.pdist(torch.cat([x, y]).double())
    h = torch.cat([distances, distances]).square().median()

    def k(a, b):
        return float(torch.exp(-(a - b).double().square().sum() / (2 * h)))

    def within(z):
        return sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))

    want = within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / 35
    assert mmd_test(x, y, torch.Generator()).mmd2 == pytest.approx(want)


def test_p_values_are_uniform_without_a_change_and_small_with_one():
    generator = torch.Generator().manual_seed(0)
    same = torch.tensor([mmd_test(draw(30, 2, 2 * i), draw(40, 2, 2 * i + 1), generator, 99).p for i in range(200)])
    assert 0.02 < float((same <= 0.1).float().mean()) < 0.2 and 0.4 < float(same.mean()) < 0.6
    assert mmd_test(draw(60, 2, 0), draw(60, 2, 1, 1.0), generator, 99).p == pytest.approx(0.01)
    wider = 3 * draw(60, 2, 1)
    assert mmd_test(draw(60, 2, 0), wider, generator, 99).p == pytest.approx(0.01), "means alone do not tell"
    assert mmd_test(torch.zeros(5, 2), torch.zeros(6, 2), generator, 9).p == 1, "nothing varies"


def test_a_sample_of_one_is_refused():
    with pytest.raises(ValueError, match="the samples have 1 and 3 examples"):
        mmd_test(torch.zeros(1, 2), torch.zeros(3, 2), torch.Generator())
