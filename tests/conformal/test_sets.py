"""Bins and sets: by hand, and each set against its definition on a fine grid."""

import math

import pytest
import torch

from bayesdual.conformal import (
    covered,
    grid_by_quantile,
    grid_by_range,
    interpolate,
    lengths,
    superlevel_sets,
    two_hot,
    widths,
)

GRID = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64)


def test_sets_by_hand():
    heights = torch.tensor([[0, 1, 0, 2], [1, 0, 0, 0], [0.1, 0.1, 0.1, 0.1], [1, 1, 1, 1]], dtype=torch.float64)
    assert superlevel_sets(GRID, heights, 0.5) == [[(0.5, 1.5), (2.5, 4.0)], [(0.0, 0.5)], [], [(0.0, 4.0)]]
    assert lengths(superlevel_sets(GRID, heights, 0.5)) == [2.5, 0.5, 0, 4]


def test_a_height_that_equals_the_threshold_does_not_turn_the_set_inside_out():
    """The reference code's second error: with the end at the threshold it gives the complement."""
    first = torch.tensor([[1.0, 3.0, 0.0, 0.0], [1.0, 0.0, 3.0, 0.0], [0.0, 0.0, 3.0, 1.0]]).double()
    sets = superlevel_sets(GRID, first, 1.0)
    assert sets[0] == [(0.0, pytest.approx(1 + 2 / 3))]
    assert sets[1] == [(0.0, 0.0), (pytest.approx(1 + 1 / 3), pytest.approx(2 + 2 * 2 / 3))]
    assert sets[2] == [(pytest.approx(1 + 1 / 3), 4.0)]


def test_sets_are_where_the_function_is_high():
    generator = torch.Generator().manual_seed(0)
    heights = torch.rand(50, 4, generator=generator, dtype=torch.float64).round(decimals=1)
    y = torch.linspace(-0.5, 4.5, 801, dtype=torch.float64)
    for threshold in (0.05, 0.3, 0.5, 0.9):
        for row, sets in zip(heights, superlevel_sets(GRID, heights, threshold), strict=True):
            f = interpolate(GRID, row.expand(len(y), 4), y)
            sure = (f - threshold).abs() > 1e-9
            inside = torch.tensor(covered([sets] * len(y), y.tolist()))
            assert torch.equal(inside[sure], (f >= threshold)[sure])
            assert all(a <= b for a, b in sets)
            assert all(b < c for (_, b), (c, _) in zip(sets, sets[1:], strict=False))


def test_with_nothing_asked_of_the_density_a_set_is_the_whole_line():
    assert superlevel_sets(GRID, torch.ones(2, 4), 0.0) == [[(-math.inf, math.inf)]] * 2


def test_outside_of_the_range_a_function_is_nothing():
    """TorchCP gives what lies outside the probability of the last bin."""
    heights = torch.tensor([[5.0, 0.0, 0.0, 7.0]], dtype=torch.float64).expand(4, 4)
    said = interpolate(GRID, heights, torch.tensor([-1e-6, 0.0, 4.0, 4.1], dtype=torch.float64))
    assert said.tolist() == [0.0, 5.0, 7.0, 0.0]


def test_two_hot_labels_have_the_target_as_their_mean_and_heights_a_density():
    y = torch.tensor([0.0, 0.25, 1.0, 3.5, 4.0, 9.0], dtype=torch.float64)
    label = two_hot(GRID, y)
    assert label[1].tolist() == [0.75, 0.25, 0, 0]
    assert (label @ GRID).tolist() == pytest.approx([0, 0.25, 1, 3.5, 4, 4])
    assert label.sum(1).tolist() == pytest.approx([1] * 6)
    p = torch.rand(1, 4, dtype=torch.float64)
    p /= p.sum()
    fine = torch.linspace(0, 4, 40_001, dtype=torch.float64)
    density = interpolate(GRID, (p / widths(GRID)).expand(len(fine), 4), fine)
    assert float(torch.trapezoid(density, fine)) == pytest.approx(1, abs=1e-6)


def test_grids():
    y = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 10.0])
    assert grid_by_range(y, 6).tolist() == [0, 2, 4, 6, 8, 10]
    assert grid_by_quantile(y, 6).tolist() == [0, 1, 2, 10]
    for grid in (grid_by_range, grid_by_quantile):
        with pytest.raises(ValueError, match="the target is constant \\(3\\)"):
            grid(torch.full((5,), 3.0), 10)
        with pytest.raises(ValueError, match="bins is 1: give at least 2"):
            grid(y, 1)
