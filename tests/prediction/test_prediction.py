"""Predictions by a posterior, by hand; and what they refuse."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from bayesdual.posterior import LastLayerPosterior, Posterior
from bayesdual.prediction import prediction_by, probit

X, T = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]]), torch.zeros(3, dtype=torch.int64)


def known():
    """A network of one layer without bias, and a posterior of it with H by hand."""
    network = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    last = LastLayerPosterior("", torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([4.0]), 0.5)
    return network, Posterior({"weight": network.weight.detach()}, {}, 0.5, last)


def test_linearised_by_hand():
    network, posterior = known()
    p = prediction_by("linearised")(network, lambda x, t: network(x), posterior, X, T).probabilities
    # H = .5 I + 4 [[1, -1], [-1, 1]] / 4 (x) [[4, 0], [0, 0]]: of input 0 [[4.5, -4], [-4, 4.5]], of input 1 .5 I
    first = 4.5 / (4.5**2 - 4**2)
    for row, (a, b) in zip(p, X.tolist(), strict=True):
        v = a * a * first + b * b / 0.5
        gap = (a - b) / math.sqrt(1 + math.pi * v / 8)
        assert row.tolist() == pytest.approx([1 / (1 + math.exp(-gap)), 1 / (1 + math.exp(gap))], rel=1e-5)


def test_samples_approach_the_mean_over_gaussian_logits():
    network, posterior = known()
    last = posterior.last_layer
    p = prediction_by("samples", 50_000)(network, lambda x, t: network(x), posterior, X, T).probabilities
    covariance = torch.linalg.inv(last.precision()).view(2, 2, 2, 2)
    for i, x in enumerate(X):
        cov = torch.einsum("i,cidj,j->cd", x, covariance, x)
        gap, spread = float(x[0] - x[1]), float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]) ** 0.5
        z = torch.randn(200_000, generator=torch.Generator().manual_seed(i))
        assert float(p[i, 0]) == pytest.approx(float((gap + spread * z).sigmoid().mean()), abs=0.01)
    again = prediction_by("samples", 50_000)(network, lambda x, t: network(x), posterior, X, T).probabilities
    assert torch.equal(p, again)


def test_samples_of_weights_approach_the_mean_over_gaussian_logits():
    network, posterior = known()
    variance = torch.tensor([[0.3, 0.1], [0.2, 0.6]])
    posterior = Posterior(posterior.mean, {"weight": 1 / variance})
    p = prediction_by("weight_samples", 20_000)(network, lambda x, t: network(x), posterior, X, T).probabilities
    for i, x in enumerate(X):
        gap, spread = float(x[0] - x[1]), float((variance @ x.square()).sum()) ** 0.5
        z = torch.randn(200_000, generator=torch.Generator().manual_seed(i))
        assert float(p[i, 0]) == pytest.approx(float((gap + spread * z).sigmoid().mean()), abs=0.01)
    assert torch.equal(network.weight, torch.eye(2)), "the network is as it was"
    with pytest.raises(
        ValueError, match="no posterior of the weights to sample: train by IVON, or predict by the mean"
    ):
        prediction_by("weight_samples")(network, lambda x, t: network(x), None, X, T)


def test_the_mean_needs_no_posterior():
    network, _ = known()
    predict = lambda x, t: network(x)  # noqa: E731
    p, epistemic = prediction_by("mean")(network, predict, None, X, T)
    assert torch.equal(p, predict(X, T).softmax(1)) and epistemic is None


@pytest.mark.parametrize("name", ["samples", "linearised"])
def test_what_weights_are_unsure_of_is_of_each_input_and_blind_to_a_shift_of_all_logits(name):
    network, posterior = known()
    predict = lambda x, t: network(x)  # noqa: E731
    p, epistemic = prediction_by(name, 32)(network, predict, posterior, X, T)
    assert float(epistemic[1]) == 0 and bool((epistemic[[0, 2]] > 0.02).all())  # of an input of zeros no weight matters
    assert bool((epistemic <= torch.special.entr(p).sum(1) + 1e-6).all())
    alone = prediction_by(name, 32)(network, predict, posterior, X[2:], T[2:])
    assert torch.allclose(alone.epistemic, epistemic[2:], atol=1e-6)
    sure = Posterior(posterior.mean, {}, 1e9, replace(posterior.last_layer, prior_precision=1e9))
    assert float(prediction_by(name)(network, predict, sure, X, T).epistemic.max()) < 1e-4
    phi = torch.tensor(
        [[30.0, 0.0]]
    )  # data that leave the shift of both logits to the prior, and hold their difference
    held = replace(posterior.last_layer, features=phi, weights=torch.tensor([1e4]))
    shifted = Posterior(posterior.mean, {}, 0.5, held)
    first = torch.tensor([[1.0, 0.0]])
    assert float(held.variance(first).min()) > 0.9
    assert float(prediction_by(name)(network, predict, shifted, first, T[:1]).epistemic) < 1e-4


def test_classes_that_cannot_be_stay_impossible_and_variance_makes_less_sure():
    f = probit(torch.tensor([[3.0, 1.0, -1e4]]), torch.tensor([[0.0, 0.0, 0.0]]))
    assert torch.equal(f, torch.tensor([[3.0, 1.0, -1e4]]))
    p = [probit(torch.tensor([[3.0, 1.0, -1e4]]), torch.full((1, 3), v)).softmax(1)[0] for v in (0.0, 5.0)]
    assert p[0][0] > p[1][0] > 0.5 and p[1][2] == 0


@pytest.mark.parametrize("name", ["samples", "linearised"])
def test_what_they_need_is_said_in_a_sentence(name):
    network, posterior = known()
    predict = lambda x, t: network(x)  # noqa: E731
    for nothing in (None, Posterior(posterior.mean, {})):
        with pytest.raises(ValueError, match="there is no posterior of a last layer"):
            prediction_by(name)(network, predict, nothing, X, T)
    other = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="whose last layer is '', not '0'"):
        prediction_by(name)(other, lambda x, t: other(x), posterior, X, T)


def test_names_and_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="prediction is 'mode': give one of mean, samples, linearised, weight_samples"):
        prediction_by("mode")
    with pytest.raises(ValueError, match="samples is 0"):
        prediction_by("samples", 0)
