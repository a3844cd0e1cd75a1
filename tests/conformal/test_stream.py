"""A memory to calibrate on, and thresholds by it: by hand, and by counting."""

import pytest
import torch

from bayesdual.conformal import (
    conformal_quantile,
    keep_for_calibration,
    lac_scores,
    one_threshold,
    thresholds_by_experience,
)
from bayesdual.memory import Memory
from bayesdual.stream import TensorData


def data(y):
    y = torch.as_tensor(y)
    return TensorData(torch.arange(len(y))[:, None], y, torch.zeros_like(y), torch.arange(len(y)))


def kept(*experiences, budget=40):
    memory, generator = Memory(budget), torch.Generator().manual_seed(0)
    for e, y in enumerate(experiences):
        keep_for_calibration(memory, data(y), e, generator)
    return memory


def test_what_is_kept_stands_for_the_experiences_examples():
    memory = kept([0] * 300 + [1] * 100, [2] * 50)
    z = memory.exemplars
    assert len(z) == 40 and memory.examples_seen == 450
    for label, n in ((0, 300), (1, 100), (2, 50)):
        mine = z.y == label
        assert int(mine.sum()) in (13, 14) and float(z.weights[mine].sum()) == pytest.approx(n)
        assert len(z.index[mine].unique()) == int(mine.sum())
    assert not torch.equal(z.index[z.y == 0], z.index[z.y == 0].sort().values)  # a draw, not the first


def test_thresholds_by_hand():
    z = kept([0] * 300 + [1] * 100, [2] * 60).exemplars
    own = torch.rand(len(z), generator=torch.Generator().manual_seed(1))
    scores = torch.full((len(z), 4), 9.0).scatter_(1, z.y[:, None], own[:, None])
    assert one_threshold(scores, z, 0.2).tolist() == pytest.approx([conformal_quantile(own, 0.2, z.weights)] * 4)
    first, second = (
        conformal_quantile(own[rows], 0.2, z.weights[rows]) for rows in (z.experience == 0, z.experience == 1)
    )
    assert thresholds_by_experience(scores, z, 0.2).tolist() == pytest.approx([first, first, second, float("-inf")])


def test_a_label_of_several_experiences_has_the_largest_threshold_and_too_few_are_refused():
    z = kept([0] * 50, [0] * 50, [1] * 50).exemplars
    scores = z.experience[:, None].float().expand(-1, 2)  # 0, 1 and 2
    assert thresholds_by_experience(scores, z, 0.2).tolist() == [1.0, 2.0]
    few = kept([0] * 50, [1] * 50, budget=8).exemplars
    with pytest.raises(ValueError, match="experience 1: there are 4 calibration examples, but alpha 0.1 needs"):
        thresholds_by_experience(torch.rand(8, 2), few, 0.1)


def test_coverage_in_each_experience_where_one_threshold_fails():
    """Labels 0 and 1 are told apart well, 2 and 3 badly, as after forgetting."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat(1000)
    sharp = torch.where(y < 2, 5.0, 0.7)
    logits = torch.randn(4000, 4, generator=generator)
    logits[torch.arange(4000), y] += sharp
    scores = lac_scores(logits.softmax(1))
    z = kept([0] * 500 + [1] * 500, [2] * 500 + [3] * 500, budget=400).exemplars
    rows = torch.cat([torch.nonzero(y == int(label))[int(i) % 500] for label, i in zip(z.y, z.index, strict=True)])
    gaps = {}
    for way in (one_threshold, thresholds_by_experience):
        hit = (scores <= way(scores[rows], z, 0.1)).gather(1, y[:, None])[:, 0].float()
        gaps[way] = max(abs(float(hit[mine].mean()) - 0.9) for mine in (y < 2, y >= 2))
    assert gaps[thresholds_by_experience] < 0.04 < gaps[one_threshold]
