"""Baselines in closed form: equal to their batch solutions, whatever the order of the data; and their bytes."""

import pytest
import torch
import torch.nn.functional as F

from bayesdual.strategies.baselines import closed_form
from bayesdual.strategies.baselines.closed_form import (
    LowRankLDA,
    NearestClassMean,
    QuantisedReplay,
    RandomRidge,
    StreamingLDA,
)

D, C, N = 12, 4, 300
MAKERS = {
    "nearest class mean": lambda: NearestClassMean(D, C),
    "streaming LDA": lambda: StreamingLDA(D, C, shrinkage=0.05),
    "random ridge": lambda: RandomRidge(D, C, seed=3, features=30, ridge_lambda=2.0),
}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(N) % C
    x = torch.randn(C, D, generator=generator)[y] + torch.randn(N, D, generator=generator) @ torch.randn(
        D, D, generator=generator
    )
    return x, y


def learned(name, *parts):
    method = MAKERS[name]()
    for x, y in parts:
        method.add(x, y)
    return method.classifier()


def batch_scores(name, x, y, at):
    """The equations of the module, of all data at once, in float64."""
    x, at = x.double(), at.double()
    means = torch.stack([x[y == c].mean(0) for c in range(C)])
    if name == "nearest class mean":
        return -torch.cdist(at, means).square() / 2
    if name == "streaming LDA":
        deviations = x - means[y]
        sigma = deviations.T @ deviations / len(x)
        precision = torch.linalg.inv(0.95 * sigma + 0.05 * torch.eye(D, dtype=x.dtype))
        w = means @ precision
        return at @ w.T - (w * means).sum(1) / 2
    r = torch.randn(D, 30, generator=torch.Generator().manual_seed(3)).double() * D**-0.5
    phi, targets = (x @ r).relu(), F.one_hot(y).double()
    w = torch.linalg.solve(phi.T @ phi + 2.0 * torch.eye(30, dtype=x.dtype), phi.T @ targets)
    return (at @ r).relu() @ w


@pytest.mark.parametrize("name", MAKERS)
def test_one_pass_gives_the_batch_solution(name, data):
    x, y = data
    scores, expected = learned(name, *zip(x.split(70), y.split(70), strict=True))(x), batch_scores(name, x, y, x)
    torch.testing.assert_close(scores.softmax(1).double(), expected.softmax(1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_neither_the_order_of_the_data_nor_its_division_matters(name, data, monkeypatch):
    x, y = data
    whole = learned(name, (x, y))(x)
    by_class = [(x[y == c], y[y == c]) for c in range(C)]
    torch.testing.assert_close(learned(name, *reversed(by_class))(x), whole, rtol=1e-3, atol=1e-4)
    one_by_one = zip(x.flip(0).split(1), y.flip(0).split(1), strict=True)
    torch.testing.assert_close(learned(name, *one_by_one)(x), whole, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(closed_form, "CHUNK", 7)
    torch.testing.assert_close(learned(name, (x, y))(x), whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_a_class_that_has_not_come_is_not_predicted(name, data):
    x, y = data
    scores = learned(name, (x[y < 2], y[y < 2]))(x)
    assert scores.isfinite().all() and (scores.argmax(1) < 2).float().mean() > (
        0.9 if name == "random ridge" else 0.999
    )


def test_what_is_carried_is_counted_as_it_is_stored_and_matrices_by_their_triangle():
    assert MAKERS["nearest class mean"]().memory_bytes() == {"means": 4 * C * D, "counts": 4 * C}
    lda = MAKERS["streaming LDA"]().memory_bytes()
    assert lda == {"means": 4 * C * D, "counts": 4 * C, "covariance": 4 * D * (D + 1) // 2}
    assert MAKERS["random ridge"]().memory_bytes() == {"gram": 4 * 30 * 31 // 2, "sums": 4 * 30 * C}


def test_as_many_features_as_fit_into_bytes():
    for budget in (100, 40_000, 40_001, 5_700_000):
        features = RandomRidge.features_within(budget, 10)
        assert RandomRidge.bytes_of(features, 10) <= budget < RandomRidge.bytes_of(features + 1, 10)
        made = RandomRidge(2, 10, 0, features)
        assert sum(made.memory_bytes().values()) == RandomRidge.bytes_of(features, 10)


def test_low_rank_lda_with_all_directions_and_many_bits_is_lda(data):
    x, y = data
    of_all, low = MAKERS["streaming LDA"](), LowRankLDA(D, C, rank=D, bits=8, shrinkage=0.05)
    for c in range(C):
        for method in (of_all, low):
            method.add(x[y == c], y[y == c])
    expected, scores = (method.classifier()(x).softmax(1) for method in (of_all, low))
    assert (scores - expected).abs().mean() < 0.02
    fewer = LowRankLDA(D, C, rank=1, shrinkage=0.05)
    fewer.add(x, y)
    assert (fewer.classifier()(x).softmax(1) - expected).abs().mean() > 0.04
    rank = LowRankLDA.rank_within(150, D, C)
    assert 0 < rank < D and LowRankLDA.rank_within(50, D, C) < 0
    bought = LowRankLDA(D, C, rank=rank)
    bought.add(x, y)
    assert 150 - 8 < sum(bought.memory_bytes().values()) <= 150


def test_quantised_replay_keeps_what_fits_and_learns_from_it(data):
    x, y = data
    few, all_of_them = QuantisedReplay(D, C, 0, 400), QuantisedReplay(D, C, 0, 10_000, bits=8, ridge_lambda=1e-3)
    for c in range(C):
        for method in (few, all_of_them):
            method.add(x[y == c], y[y == c])
    assert 300 < sum(few.memory_bytes().values()) <= 400 + 13  # and a header
    right = [(method.classifier()(x).argmax(1) == y).float().mean() for method in (few, all_of_them)]
    joint = torch.linalg.lstsq(F.pad(x, (0, 1), value=1.0), F.one_hot(y).float()).solution
    assert right[1] > (F.pad(x, (0, 1), value=1.0) @ joint).argmax(1).eq(y).float().mean() - 0.03 > 0.4
    assert right[0] < right[1]


def test_random_features_follow_from_the_seed(data):
    x, y = data
    scores = []
    for seed in (0, 0, 1):
        method = RandomRidge(D, C, seed, features=30)
        method.add(x, y)
        scores.append(method.classifier()(x))
        torch.rand(3)  # whatever else was drawn
    assert torch.equal(scores[0], scores[1]) and not torch.allclose(scores[0], scores[2])


def test_a_matrix_that_cannot_be_inverted_is_said_in_a_sentence():
    method = StreamingLDA(D, C, shrinkage=1e-12)
    method.add(torch.zeros(2, D), torch.tensor([0, 1]))
    method.classifier()
    method.add(torch.full((2, D), 1e30), torch.tensor([0, 1]))
    with pytest.raises(FloatingPointError, match="raise shrinkage or ridge_lambda"):
        method.classifier()
