"""Scores against their definitions, leave-one-out against retraining, and the last layer that is watched."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesdual.posterior import (
    Posterior,
    curvature,
    function_variance,
    last_layer_variance,
    leave_one_out_nll,
    leverage,
    memory_perturbation,
    residual,
    sensitivities,
    watching_last_linear,
)
from bayesdual.stream import TensorData


def test_scores_follow_their_definitions_and_vanish_for_what_is_certain():
    p = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    v = torch.tensor([[2.0, 4.0], [2.0, 4.0]])
    assert curvature(p).tolist() == [[0.25, 0.25], [0.0, 0.0]]
    assert leverage(p, v).tolist() == [1.5, 0.0]
    assert memory_perturbation(p, torch.tensor([0, 0]), v).tolist() == [0.75, 0.0]


def test_last_layer_variance_is_that_of_sampled_weights():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 4), torch.rand(2, 4), torch.rand(2)
    samples = torch.stack(
        [x @ (weight.sqrt() * torch.randn(2, 4)).T + bias.sqrt() * torch.randn(2) for _ in range(20000)]
    )
    assert torch.allclose(last_layer_variance(x, weight, bias), samples.var(0), rtol=0.05)


def test_the_linear_layer_called_last_is_watched_and_let_go():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randn(5, 4)
    with watching_last_linear(net) as last:
        net(x)
    assert last.name == "2" and torch.equal(last.features, net[:2](x))
    assert last.variance({"2.weight": torch.ones(2, 3)}).shape == (5, 2)
    assert last.variance({}) is None
    assert not net[2]._forward_hooks


def make_posterior(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = {name: p.detach() for name, p in net.named_parameters()}
    precision = {name: 20 + 20 * torch.rand(p.shape, generator=generator) for name, p in mean.items()}
    return Posterior(mean, precision)


def make_data(n=23, tasks=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)
    return TensorData(x, y, torch.arange(n) % tasks, torch.arange(n))


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def test_leave_one_out_makes_the_label_less_likely_and_leaves_what_has_no_variance():
    f, y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 4
    before = F.cross_entropy(f, y, reduction="none")
    assert torch.equal(leave_one_out_nll(f, y, torch.zeros(50, 4)), before)
    assert (leave_one_out_nll(f, y, torch.full((50, 4), 0.1)) > before).all()
    assert torch.allclose(residual(f.softmax(1), y).sum(1), torch.zeros(50), atol=1e-6)


def test_leave_one_out_is_that_of_retrained_logistic_regression():
    """Against the optimum without the example, found by Newton's method; here the posterior is exact (one weight)."""
    torch.manual_seed(0)
    x = torch.randn(80, dtype=torch.float64)
    y = (torch.rand(80) < (2 * x).sigmoid()).long()
    theta = logistic_optimum(x, y, torch.ones(80))
    f = torch.stack([torch.zeros(80), theta * x], 1)
    p = f.softmax(1)[:, 1]
    variance = 1 / (1 + (p * (1 - p) * x**2).sum())
    v = torch.stack([torch.zeros(80), variance * x**2], 1).double()
    predicted = leave_one_out_nll(f, y, v) - F.cross_entropy(f, y, reduction="none")
    actual = []
    for i in range(80):
        kept = torch.ones(80)
        kept[i] = 0
        without = torch.stack([torch.zeros(80), logistic_optimum(x, y, kept) * x], 1)
        actual.append(F.cross_entropy(without[i : i + 1], y[i : i + 1]) - F.cross_entropy(f[i : i + 1], y[i : i + 1]))
    actual = torch.stack(actual)
    assert (predicted - actual).norm() < 0.1 * actual.norm()


def logistic_optimum(x, y, kept):
    theta = torch.zeros((), dtype=torch.float64)
    for _ in range(30):
        p = (theta * x).sigmoid()
        theta = theta - ((kept * (p - y) * x).sum() + theta) / ((kept * p * (1 - p) * x**2).sum() + 1)
    return theta


def test_sensitivities_are_the_scores_of_the_exact_variance_whatever_the_batches():
    net, data = make_net(), make_data()
    posterior, seen = make_posterior(net), []
    got = sensitivities(net, data, posterior, batch_size=5, progress=lambda done, of: seen.append((done, of)))
    v, f = function_variance(net, data.x, posterior), net(data.x).detach()
    p = f.softmax(1)
    assert torch.equal(got.rows, torch.arange(23))
    assert torch.allclose(got.curvature, curvature(p).sum(1), rtol=1e-5)
    assert torch.allclose(got.leverage, leverage(p, v), rtol=1e-5)
    assert torch.allclose(got.memory_perturbation, memory_perturbation(p, data.y, v), rtol=1e-5)
    assert torch.allclose(got.nll, F.cross_entropy(f, data.y, reduction="none"), rtol=1e-5)
    assert torch.allclose(got.loo_nll, leave_one_out_nll(f, data.y, v), rtol=1e-5)
    assert seen == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]


def test_shares_of_ranks_make_the_whole():
    net, data = make_net(), make_data()
    posterior = make_posterior(net)
    whole = sensitivities(net, data, posterior)
    shares = [sensitivities(net, data, posterior, rows=slice(rank, None, 3)) for rank in range(3)]
    order = torch.cat([share.rows for share in shares]).argsort()
    assert [len(share.rows) for share in shares] == [8, 8, 7]
    assert torch.allclose(torch.cat([share.loo_nll for share in shares])[order], whole.loo_nll, rtol=1e-5)


def test_predict_prepares_inputs_and_knows_the_task():
    """One task lets only two classes be; the inputs are doubled on the way in."""
    net, data = make_net(), make_data(tasks=2)
    posterior = make_posterior(net)
    allowed = torch.tensor([[True, True, True], [True, True, False]])

    def predict(x, t):
        return net(2 * x).masked_fill(~allowed[t], -1e4)

    data = TensorData(data.x, data.y.clamp(max=1), data.tasks, data.index)
    got = sensitivities(net, data, posterior, predict=predict, batch_size=10)
    f = predict(data.x, data.tasks).detach()
    v = function_variance(net, 2 * data.x, posterior) * allowed[data.tasks]
    assert torch.equal(got.rows, torch.arange(23))
    assert torch.allclose(got.loo_nll, leave_one_out_nll(f, data.y, v), rtol=1e-5)
    assert not got.leverage.isnan().any()
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_what_selects_nothing_is_refused():
    net, data = make_net(), make_data()
    with pytest.raises(ValueError, match="selects none of the 23 examples"):
        sensitivities(net, data, make_posterior(net), rows=slice(30, None))
    with pytest.raises(ValueError, match="batch_size is 0"):
        sensitivities(net, data, make_posterior(net), batch_size=0)
