"""Scores against their definitions, and the last layer that is watched."""

import torch
from torch import nn

from bayesdual.sensitivity import curvature, last_layer_variance, leverage, memory_perturbation, watching_last_linear


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
