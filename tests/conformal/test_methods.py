"""Losses and scores by their definitions; every set is {y : score <= q}; refusals of the regressor."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone

from bayesdual.conformal import (
    CQR,
    LOSSES,
    ConformalRegressor,
    Normalised,
    RegressionAsClassification,
    Split,
    aps_scores,
    blurred_loss,
    conformal_quantile,
    covered,
    grid_by_range,
    lac_scores,
    lengths,
    published_loss,
    raps_scores,
    two_hot_loss,
)

GRID = torch.linspace(-2, 2, 9, dtype=torch.float64)
METHODS = {
    "classification": RegressionAsClassification(GRID),
    "split": Split(),
    "normalised": Normalised(),
    "cqr": CQR(0.2),
}


def test_published_loss_rewards_entropy():
    """By hand; TorchCP's port adds the entropy, so that the sharper of two equally wrong predictions is the better."""
    grid, y = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.0])
    p = torch.tensor([0.2, 0.5, 0.3])
    by_hand = 0.5 - 0.2 * -sum(v * math.log(v) for v in p.tolist())
    assert float(published_loss(p.log()[None], y, grid)) == pytest.approx(by_hand)
    one_side, both = torch.tensor([[0.0, -99.0, -99.0]]), torch.tensor([[0.0, -99.0, 0.0]])  # both a distance of 1 off
    assert published_loss(both, y, grid) < published_loss(one_side, y, grid)


def test_cross_entropies_by_hand():
    grid, logits = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([[0.3, -0.2, 0.8]])
    log_p = logits.log_softmax(1)[0].tolist()
    assert float(two_hot_loss(logits, torch.tensor([1.5]), grid)) == pytest.approx(-(0.75 * log_p[1] + 0.25 * log_p[2]))
    bell = [w * math.exp(-((1.5 - g) ** 2) / (2 * 0.4**2)) for g, w in zip((0, 1, 3), (0.5, 1.5, 1), strict=True)]
    expected = -sum(b / sum(bell) * v for b, v in zip(bell, log_p, strict=True))
    assert float(blurred_loss(logits, torch.tensor([1.5]), grid, 0.4)) == pytest.approx(expected)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_loss_leads_to_the_target(loss):
    grid, y = grid_by_range(torch.tensor([-2.0, 2.0]), 21), torch.full((8,), 0.7)
    logits = torch.zeros(8, 21, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.2)
    for _ in range(150):
        optimizer.zero_grad()
        loss(logits, y, grid).backward()
        optimizer.step()
    method = RegressionAsClassification(grid, loss)
    assert method.mean(method.activate(logits.detach())).tolist() == pytest.approx([0.7] * 8, abs=0.15)


def test_quantile_loss_by_hand():
    e = [1.0, -1.0, -3.0]
    expected = sum(max(a * v, (a - 1) * v) for a, v in zip((0.1, 0.5, 0.9), e, strict=True))
    assert float(CQR(0.2).loss(torch.tensor([[0.0, 2.0, 4.0]]), torch.tensor([1.0]))) == pytest.approx(expected)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_set_is_where_the_score_is_at_most_q(method):
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(40, method.outputs, generator=generator, dtype=torch.float64)
    said, y = method.activate(raw), torch.randn(40, generator=generator, dtype=torch.float64)
    scores = method.score(said, y)
    for alpha in (0.1, 0.5):
        q = conformal_quantile(scores, alpha) + 1e-9
        assert covered(method.sets(said, q), y.tolist()) == (scores <= q).tolist()


# -- labels

P = torch.tensor([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]], dtype=torch.float64)


def test_scores_of_labels_by_hand():
    assert lac_scores(P)[0].tolist() == pytest.approx([0.9, 0.4, 0.7])
    assert aps_scores(P).tolist() == [pytest.approx([1.0, 0.6, 0.9]), pytest.approx([0.4, 1.0, 0.8])]
    u = torch.tensor([0.5, 0.0])
    assert aps_scores(P, u).tolist() == [pytest.approx([0.95, 0.3, 0.75]), pytest.approx([0.0, 0.8, 0.4])]
    assert raps_scores(P, penalty=0.2, free=1)[0].tolist() == pytest.approx([1.4, 0.6, 1.1])


@pytest.mark.parametrize("name", ["lac", "aps", "raps"])
def test_sets_of_labels_cover(name):
    """4,000 examples whose labels are drawn from p itself: 1,000 to calibrate, 3,000 to count."""
    generator = torch.Generator().manual_seed(1)
    p = torch.randn(4000, 8, generator=generator).mul(2).softmax(1)
    y = torch.multinomial(p, 1, generator=generator)
    u = torch.rand(4000, generator=generator)
    scores = {"lac": lambda: lac_scores(p), "aps": lambda: aps_scores(p, u), "raps": lambda: raps_scores(p, u)}[name]()
    q = conformal_quantile(scores[:1000].gather(1, y[:1000])[:, 0], 0.2)
    assert float((scores[1000:].gather(1, y[1000:]) <= q).float().mean()) == pytest.approx(0.8, abs=0.03)


# -- the regressor


def bimodal(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 2, n)
    return x[:, None], rng.choice([-1, 1], n) * (1 + x) + 0.2 * rng.normal(size=n)


QUICK = {"epochs": 12, "folds": 2, "random_state": 0}


@pytest.fixture(scope="module")
def fitted():
    return ConformalRegressor(**QUICK).fit(*bimodal(800, 0))


def test_sets_follow_two_modes_and_cover(fitted):
    x, y = bimodal(2000, 1)
    sets = fitted.predict_set(x)
    assert np.mean(covered(sets, y)) == pytest.approx(0.9, abs=0.04)
    assert np.mean([len(row) == 2 for row in sets]) > 0.7
    assert fitted.method_ == min(fitted.lengths_, key=fitted.lengths_.get) and set(fitted.lengths_) == {
        *LOSSES,
        "coarse",
    }
    cqr = clone(fitted).set_params(method="cqr").fit(*bimodal(800, 0))
    assert np.mean(lengths(sets)) < 0.5 * np.mean(lengths(cqr.predict_set(x)))
    wider = fitted.predict_set(x, alpha=0.02)
    assert np.mean(lengths(wider)) > np.mean(lengths(sets))
    assert all(a >= c and b <= d for one, all_ in zip(sets, wider, strict=True) for a, b in one
               for c, d in [next(i for i in all_ if i[0] <= a <= i[1])])  # fmt: skip


def test_the_seed_decides_and_nobody_elses_draws_change(fitted):
    before = torch.random.get_rng_state()
    again = clone(fitted).fit(*bimodal(800, 0))
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(again.scores_, fitted.scores_) and again.lengths_ == fitted.lengths_


def test_units_of_the_target_scale_the_sets():
    x, y = bimodal(200, 0)
    small, large = (ConformalRegressor("two-hot", **QUICK).fit(x, y * 1000**k + 5 * k) for k in (0, 1))
    for one, other in zip(small.predict_set(x[:20]), large.predict_set(x[:20]), strict=True):
        assert np.array(other) == pytest.approx(1000 * np.array(one) + 5, rel=1e-3, abs=1)


def test_calibration_examples_can_be_given_and_given_again():
    x, y = bimodal(200, 0)
    given = ConformalRegressor("split", **QUICK).fit(x, y, x[:30], y[:30])
    assert given.scores_.shape == (30,)
    assert given.calibrate(x[:50], y[:50]).scores_.shape == (50,)


def test_what_the_regressor_refuses_is_said_in_a_sentence(fitted):
    x, y = bimodal(60, 0)
    regressor = ConformalRegressor("split", **QUICK)
    holes = np.where(np.arange(60) < 2, np.nan, y)
    for target, sentence in (
        (np.stack([y, y], 1), "y has 2 targets a row: fit one ConformalRegressor for each"),
        (holes, "2 of 60 targets are NaN or infinite: leave these rows out"),
        (np.full(60, 4.0), "the target is constant \\(4\\): there is nothing to predict"),
    ):
        with pytest.raises(ValueError, match=sentence):
            regressor.fit(x, target)
    for key, value, sentence in (
        ("alpha", 1.2, "alpha is 1.2: it is the share of errors that is allowed"),
        ("method", "mode", "method is 'mode': give one of best, published, two-hot"),
        ("bins_by", "width", "bins_by is 'width': give one of range, quantile"),
        ("folds", 1, "folds is 1: give at least 2"),
        ("calibration_share", 1.0, "calibration_share is 1.0: give a share between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            clone(regressor).set_params(**{key: value}).fit(x, y)
    few = regressor.fit(x[:40], y[:40])
    with pytest.raises(ValueError, match="there are 8 calibration examples, but alpha 0.1 needs at least 9"):
        few.predict_set(x)
    with pytest.raises(ValueError, match="alpha is 0: it is the share"):
        fitted.predict_set(x, alpha=0)
