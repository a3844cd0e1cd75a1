"""Figures show the numbers that they are given."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bayesdual import inspection
from bayesdual.inspection import (
    accuracy_figure,
    certainty_figure,
    is_images,
    losses_figure,
    memory_figure,
    parts_figure,
    posterior_figure,
    progress_figure,
)
from bayesdual.inspection.memory_figures import changes_figure, drawn_rows, extremes_figure, map_figure
from bayesdual.memory import Exemplars, MemoryMap
from bayesdual.posterior import Posterior

MATRIX = [[0.9, 0.1, 0.0], [0.6, 0.8, 0.2], [0.7, 0.5, 1.0]]


def exemplars(channels=1, counts=(3, 12)):
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    n = len(y)
    x = torch.zeros(n, channels, 6, 8)
    x[:, :, 0] = 1.0  # each image has a bright line at its top
    zeros = torch.zeros(n, dtype=torch.int64)
    return Exemplars(x, 4 + y, zeros, torch.zeros(n, 6), torch.ones(n), torch.arange(n) / 10, zeros, zeros)


def test_the_heat_map_is_the_matrix_with_a_number_in_each_cell():
    (axes,) = accuracy_figure(MATRIX).axes
    (image,) = axes.images
    shown = image.get_array()
    assert np.array_equal(shown.mask, ~np.tri(3, dtype=bool)) and np.array_equal(shown.data, np.array(MATRIX))
    assert [text.get_text() for text in axes.texts] == ["0.90", "0.60", "0.80", "0.70", "0.50", "1.00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]


def test_of_a_hundred_experiences_neither_numbers_nor_names_are_drawn():
    matrix = [[1.0] * 100 for _ in range(100)]
    assert not accuracy_figure(matrix).axes[0].texts
    (axes,) = progress_figure(matrix).axes
    assert len(axes.lines) == len(axes.texts) == 11, "means of ten groups, and of all"
    assert axes.texts[0].get_text() == "experiences 1-10"


def test_bars_are_what_was_lost_and_what_a_whole_is_made_of():
    (axes,) = losses_figure([0.2, 0.0]).axes
    assert [bar.get_height() for bar in axes.patches] == [0.2, 0.0] and axes.get_ylim()[0] == 0
    (axes,) = parts_figure({"labels": 3.0, "inputs": 1200.0}, "bytes").axes
    assert [bar.get_width() for bar in axes.patches] == [1200.0, 3.0]
    assert [text.get_text().strip() for text in axes.texts] == ["1,200", "3.0"]


def test_each_parameter_s_deviations_are_drawn_beside_the_prior_s():
    curvature = {"w": torch.arange(5.0), "b": torch.zeros(3)}
    (axes,) = posterior_figure(Posterior(dict(curvature), curvature, 4.0)).axes
    median = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    assert [float(x[0]) for x in median] == pytest.approx([6**-0.5, 0.5])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["w", "b"]


def test_each_experience_is_a_line_from_where_it_was_learned_and_the_mean_is_of_those_seen():
    (axes,) = progress_figure(MATRIX).axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert lines["experience 2"] == ([2, 3], [0.8, 0.5]) and lines["experience 3"] == ([3], [1.0])
    assert lines["mean of those seen"][1] == pytest.approx([0.9, 0.7, 2.2 / 3])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_memory_is_a_row_of_images_for_each_class_with_their_scores(channels):
    (axes,) = memory_figure(exemplars(channels)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "5"]
    (named,) = memory_figure(exemplars(channels), [*"abcd", "cat"]).axes
    assert [label.get_text() for label in named.get_yticklabels()] == ["cat", "5"], "a number where there is no name"
    assert [text.get_text() for text in axes.texts] == ["1"] * 13, "how many examples, of the first ten of a class"
    bars = [bar.get_segments()[1] for bar in axes.collections]
    assert [float(x[1][0] - x[0][0]) for x in bars] == pytest.approx([8 * s / 14 for s in range(13)]), "one scale"
    assert "a full one is 1.4" in axes.get_title()
    canvas = axes.images[0].get_array()
    top, right = 6 // 2, 8 // 8 + 1
    assert canvas.shape == (2 * (top + 6), 10 * (8 + right), 3)
    assert (canvas[top, :8] == 1).all() and (canvas[top + 1, :8] == 0).all()  # the first image
    assert (canvas[top + 1, 3 * (8 + right) : top + 6] == 1).all()  # class 4 has but three


def test_an_image_without_contrast_is_drawn():
    flat = exemplars()
    flat.x.fill_(0.5)
    assert np.isfinite(np.ma.getdata(memory_figure(flat).axes[0].images[0].get_array())).all()


def test_images_have_one_or_three_channels():
    assert is_images(torch.zeros(2, 1, 4, 4)) and is_images(torch.zeros(2, 3, 4, 4))
    assert not is_images(torch.zeros(2, 2, 4, 4)) and not is_images(torch.zeros(2, 16))


def test_of_a_hundred_classes_and_parameters_some_are_drawn_and_it_is_said(mapped):
    axes = memory_figure(exemplars(counts=[2] * 100)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(4 + c) for c in range(80, 100)]
    assert axes.get_title().endswith("; of 100 classes the 20 with the highest scores")
    changes = torch.stack([torch.arange(100), torch.arange(100), torch.zeros(100).long()], 1)
    axes = changes_figure(changes).axes[0]
    assert len(axes.get_yticks()) == 20 and axes.get_ylabel() == "class, the 20 that changed most of 100"
    curvature = {f"w{k}": torch.full((2,), float(k)) for k in range(50)}
    axes = posterior_figure(Posterior(dict(curvature), curvature, 4.0)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"w{k}" for k in range(30, 50)]
    assert axes.get_xlabel() == "standard deviation, the 20 narrowest of 50 parameters"


@pytest.fixture
def mapped():
    """Ten examples, two of them kept."""
    residuals, extremes = torch.linspace(0, 0.9, 10), torch.tensor([9, 8, 0, 1])
    kept = torch.arange(10) > 7
    x = exemplars(counts=(4,)).x
    return MemoryMap(
        torch.arange(10), residuals, residuals**2, kept, torch.arange(10), extremes, x, torch.tensor([[3, 2, 1]])
    )


def test_the_map_draws_each_example_where_it_stands_and_marks_those_kept(mapped):
    others, kept = map_figure(mapped).axes[0].collections
    assert kept.get_offsets().flatten().tolist() == pytest.approx([0.8, 0.64, 0.9, 0.81])
    assert others.get_offsets()[0].tolist() == pytest.approx([0.0, 0.81e-6]), "what has no leverage stands on the axis"
    assert len(others.get_offsets()) == 8


def test_extremes_are_pictures_with_their_classes(mapped):
    (axes,) = extremes_figure(mapped).axes
    assert [text.get_text() for text in axes.texts] == ["9", "8", "0", "1"]
    assert [text.get_weight() for text in axes.texts] == ["bold", "bold", "normal", "normal"]


def test_what_came_and_what_went_are_bars_on_either_side(mapped):
    (axes,) = changes_figure(mapped.changes, [*"abc", "cat"]).axes
    assert [bar.get_width() for bar in axes.patches] == [2, -1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat"]


def test_of_many_examples_those_kept_and_the_extremes_are_drawn_and_it_is_said():
    n = 50_000
    rows, extremes = torch.arange(n), torch.tensor([7, 9])
    flat = torch.zeros(n)
    mapped = MemoryMap(rows, flat, flat, rows == 3, rows, extremes, torch.zeros(2, 5), torch.zeros(0, 3).long())
    drawn = drawn_rows(mapped)
    assert {3, 7, 9} < set(drawn.tolist()) and 1900 < len(drawn) <= 2000
    assert f"{len(drawn):,} of 50,000 drawn" in map_figure(mapped).axes[0].get_xlabel()


@pytest.mark.parametrize("posterior", [False, True])
def test_certainty_is_drawn_of_each_group_after_the_experiences_that_have_it(posterior):
    def of(value):
        measures = {"nll": value, "ece": value / 10, "entropy": value / 2}
        return {**measures, "epistemic": value / 4} if posterior else measures

    apart = {"unseen": {"auroc_entropy": 0.7, **({"auroc_epistemic": 0.8} if posterior else {})}}
    rows = [
        {"after": 1, "new": of(0.1), "unseen": of(6.0), "told_apart": apart},
        {"after": 2, "old": of(0.4), "new": of(0.2), "told_apart": {}},
    ]
    nll, ece, entropy, auroc = certainty_figure(rows).axes
    expected = {"old": [(2, 0.4)], "new": [(1, 0.1), (2, 0.2)], "unseen": [(1, 6.0)]}
    for axes, scale in ((nll, 1), (ece, 10)):
        shown = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}
        assert shown == {name: [(x, y / scale) for x, y in points] for name, points in expected.items()}
    assert len(entropy.lines) == (6 if posterior else 3)
    assert [list(line.get_ydata()) for line in auroc.lines] == [[0.7], *([[0.8]] if posterior else []), [0.5, 0.5]]


def test_data_of_another_kind_are_drawn_where_there_are_some():
    row = {"after": 1, "new": {"nll": 0.5, "ece": 0.1, "entropy": 0.2}, "ood": {"entropy": 0.9}}
    axes = certainty_figure([{**row, "told_apart": {"ood": {"auroc_entropy": 0.8}}}]).axes
    assert [line.get_label() for line in axes[0].lines] == ["new"]
    drawn = {line.get_label(): list(line.get_ydata()) for line in (*axes[2].lines, *axes[3].lines)}
    assert drawn["other data"] == [0.9] and drawn["other data by entropy"] == [0.8]


def test_figures_need_no_display():
    """None goes through pyplot, which looks for one."""
    package = Path(inspection.__file__).parents[1]
    assert not [path for path in package.rglob("*.py") if "pyplot" in path.read_text()]
