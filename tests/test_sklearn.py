"""The classifier is an estimator by scikit-learn's own tests, and remembers what it learned part by part."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

from bayesdual import BayesDual
from bayesdual.sklearn import ContinualClassifier, ContinualRegressor


@parametrize_with_checks(
    [
        ContinualClassifier(hidden=(16,), epochs=8, random_state=0),
        ContinualRegressor(epochs=8, random_state=0),
    ]
)
def test_it_is_an_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    names = np.array([f"digit {label}" for label in y])
    return x[:700], names[:700], x[1200:], names[1200:]


def learned(digits, **settings):
    x, y, *_ = digits
    classes = np.unique(y)
    model = ContinualClassifier(100, hidden=(64,), epochs=8, random_state=0, **settings)
    for pair in classes.reshape(5, 2):
        rows = np.isin(y, pair)
        model.partial_fit(x[rows], y[rows], classes)
    return model


def test_each_partial_fit_is_an_experience_that_later_ones_do_not_wipe_out(digits):
    model = learned(digits)
    forgetful = learned(digits, algorithm=lambda size: BayesDual(0, weight_prior=None)).score(*digits[2:])
    accuracy = model.score(*digits[2:])
    assert accuracy > 0.7 and forgetful < 0.4
    assert model.n_experiences_ == 5 and len(model.algorithm_.memory) == 100
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(digits[2]), model.predict_proba(digits[2]))
    assert learned(digits).score(*digits[2:]) == accuracy, "the same seed gives the same"


def test_the_regressor_remembers_what_it_learned_part_by_part():
    draw = np.random.default_rng(0)
    x = draw.uniform(-2, 2, (600, 2))
    y = 1000 + 50 * np.sin(2 * x[:, 0]) + 20 * x[:, 1]

    def learned(size):
        model = ContinualRegressor(size, epochs=20, random_state=0)
        for low in (-2, 0):
            rows = (x[:, 0] >= low) & (x[:, 0] < low + 2)
            model.partial_fit(x[rows], y[rows])
        return model

    model, forgetful = learned(60), learned(0)
    assert model.score(x, y) > 0.7 and model.score(x, y) > forgetful.score(x, y) + 0.2
    assert model.n_experiences_ == 2 and len(model.algorithm_.memory) == 60
    likelihood = model.algorithm_.likelihood
    assert 900 < likelihood.location < 1100 and likelihood.noise < 25


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: m.partial_fit([[0.0], [1.0]], ["a", "b"]), "classes is not given"),
        (lambda m: m.partial_fit([[0.0], [1.0]], ["a", "c"], ["a", "b"]), "y has the label 'c'"),
        (lambda m: m.fit([[0.0], [1.0]], ["a", "a"]), "there is one class"),
        (lambda m: m.fit([[0.0], [1.0], [2.0]], ["a", "b", "c"]), "memory_size is 2, but .* 3 classes"),
        (lambda m: m.set_params(epochs=0).fit([[0.0], [1.0]], ["a", "b"]), "epochs is 0"),
        (lambda m: m.fit([[0.0], [1.0]], ["a", "b"]).partial_fit([[0.0]], ["a"], ["a", "c"]), "first partial_fit said"),
        (lambda m: ContinualRegressor(likelihood="poisson").fit([[0.0], [1.0]], [1.0, -1.0]), "example 1 .* no count"),
        (lambda m: ContinualRegressor(likelihood="bernoulli").fit([[0.0], [1.0]], [1, 0]), "take ContinualClassifier"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(ContinualClassifier(2, hidden=(4,), epochs=1))
