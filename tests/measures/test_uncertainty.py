"""Measures of calibration and of what is unfamiliar: by hand, and against other libraries where these have them."""

import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score

from bayesdual.measures import adaptive_ece, aurc, brier, ood_auroc, ood_fpr, split_entropy

P = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
Y = torch.tensor([0, 1, 1, 0])  # right, wrong, right, wrong


def test_calibration_by_hand():
    # by confidence: .6 wrong, .7 right | .8 wrong, .9 right
    assert adaptive_ece(P, Y, bins=2) == pytest.approx((abs(1 - 1.3) + abs(1 - 1.7)) / 4)
    assert adaptive_ece(P, Y, bins=4) == pytest.approx((0.6 + 0.3 + 0.8 + 0.1) / 4)
    assert brier(P, Y) == pytest.approx((0.02 + 1.28 + 0.18 + 0.72) / 4)
    assert brier(P, Y) == pytest.approx(2 * brier_score_loss(Y, P[:, 1]))
    assert aurc(P, Y) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert aurc(P, torch.tensor([0, 0, 1, 0])) == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)


def test_a_bin_of_each_example_is_not_calibration_but_many_examples_in_it_are():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(20_000, 5, generator=generator).softmax(1)
    y = torch.multinomial(p, 1, generator=generator)[:, 0]
    assert adaptive_ece(p, y) < 0.02 < adaptive_ece((3 * p.log()).softmax(1), y)


def test_auroc_and_fpr():
    generator = torch.Generator().manual_seed(0)
    known, other = (torch.randn(300, generator=generator).mul(3).round() + shift for shift in (0, 2))
    truth = torch.cat([torch.zeros(300), torch.ones(300)])
    assert ood_auroc(known, other) == pytest.approx(roc_auc_score(truth, torch.cat([known, other])))
    assert ood_auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])) == pytest.approx((0.75 + 1) / 2)
    assert ood_auroc(known + 1000, other + 1000) == ood_auroc(known, other)  # no sigmoid makes ties of large scores
    twenty = torch.arange(20.0)
    assert ood_fpr(torch.tensor([0.0, 0.9, 1.0, 5.0]), twenty) == pytest.approx(2 / 4)  # 19 of 20 are at 1 or above
    assert ood_fpr(torch.tensor([0.0, 0.9, 1.0, 5.0]), twenty, found=1.0) == 1


def test_entropy_by_hand_and_its_two_limits():
    sure = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # the samples contradict each other
    same = torch.tensor([[[0.5, 0.5]], [[0.5, 0.5]]])  # they agree that it is open
    log2 = torch.tensor(2.0).log().item()
    assert [v.item() for v in split_entropy(sure)] == pytest.approx([log2, 0, log2])
    assert [v.item() for v in split_entropy(same)] == pytest.approx([log2, log2, 0])
