"""The measures against values worked out by hand."""

import math

import pytest
import torch

from bayesdual import measures

MATRIX = [[0.9, 0.1, 0.0], [0.6, 0.8, 0.2], [0.7, 0.5, 1.0]]


def test_measures_of_an_accuracy_matrix():
    assert measures.average_accuracy(MATRIX) == pytest.approx((0.7 + 0.5 + 1.0) / 3)
    assert measures.forgetting(MATRIX) == pytest.approx((0.2 + 0.3) / 2)
    assert measures.backward_transfer(MATRIX) == pytest.approx((-0.2 - 0.3) / 2)
    assert measures.forward_transfer(MATRIX, [0.5, 0.05, 0.15]) == pytest.approx((0.05 + 0.05) / 2)
    assert measures.average_seen_accuracy(MATRIX[:2]) == pytest.approx(0.7)


def test_forgetting_is_from_the_best_and_not_from_what_was_just_learned():
    matrix = [[0.8, 0.1, 0.0], [0.9, 0.7, 0.0], [0.6, 0.7, 1.0]]
    assert measures.forgetting(matrix) == pytest.approx((0.3 + 0.0) / 2)
    assert measures.backward_transfer(matrix) == pytest.approx((-0.2 + 0.0) / 2)


def test_a_single_experience_forgets_nothing():
    assert measures.forgetting([[0.5]]) == measures.backward_transfer([[0.5]]) == 0


def test_stream_metric_counts_by_experience_and_does_not_depend_on_batching():
    p = torch.tensor([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.1, 0.9]])
    y = torch.tensor([0, 0, 1, 1])
    whole, parts = measures.StreamMetric(2), measures.StreamMetric(2)
    whole.update(p[:3], y[:3], 0)
    whole.update(p[3:], y[3:], 1)
    for i in range(4):
        parts.update(p[i : i + 1], y[i : i + 1], int(i == 3))
    result = whole.compute()
    assert result["accuracy"] == pytest.approx([1 / 3, 1.0])
    assert result["nll"] == pytest.approx(-sum(map(math.log, (0.8, 0.3, 0.4, 0.9))) / 4)
    # four bins of one example each: |1-.8|, |0-.7|, |0-.6|, |1-.9|
    assert result["ece"] == pytest.approx((0.2 + 0.7 + 0.6 + 0.1) / 4)
    by_parts = parts.compute()
    assert by_parts["confusion"] == result["confusion"]
    assert all(a == pytest.approx(b) for a, b in zip(by_parts["reliability"], result["reliability"], strict=True))
    for name in result.keys() - {"confusion", "reliability"}:
        assert by_parts[name] == pytest.approx(result[name]), name


def test_calibration_has_15_bins_that_begin_at_their_lower_edge():
    metric = measures.StreamMetric(1)
    confidence = torch.tensor([0.62, 0.68, 0.74])  # bins begin at .6, .667 and .733, where 10 would begin at .6 and .7
    metric.update(torch.stack([confidence, 1 - confidence], 1), torch.tensor([0, 1, 0]), 0)
    assert metric.compute()["ece"] == pytest.approx((0.38 + 0.68 + 0.26) / 3)


def test_a_certain_and_wrong_prediction_costs_much_but_not_infinitely():
    metric = measures.StreamMetric(1)
    metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), 0)
    assert 80 < metric.compute()["nll"] < math.inf
