"""The K-prior's terms against what the paper says of them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesdual.kprior import function_space_loss, weight_space_loss


def test_gradient_is_that_of_the_past_for_a_linear_model_with_all_data():
    """Khan & Swaroop 2021, eq. 8: at any theta, K-prior's gradient = past's (loss and L2 prior), trained theta_old."""
    torch.manual_seed(0)
    x, y, delta = torch.randn(60, 5, dtype=torch.float64), torch.randint(3, (60,)), 0.1
    old = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [old], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def past(w):
        return F.cross_entropy(x @ w.T, y, reduction="sum") + delta / 2 * w.square().sum()

    def closure():
        optimizer.zero_grad()
        loss = past(old)
        loss.backward()
        return loss

    optimizer.step(closure)
    old = old.detach()
    layer = nn.Linear(5, 3, bias=False).double()
    new = layer.weight
    weights = torch.ones(60, dtype=torch.float64)
    kprior = 60 * function_space_loss(layer(x), x @ old.T, weights) + weight_space_loss(
        layer, {"weight": old}, {"weight": torch.full_like(old, delta)}
    )
    (got,) = torch.autograd.grad(kprior, new)
    (want,) = torch.autograd.grad(past(new), new)
    assert (got - want).norm() / want.norm() < 1e-6


def test_function_space_loss_by_hand():
    """T^2 times the weighted mean of the cross-entropies at temperature T, of soft labels (3/4, 1/4) and (1/2, 1/2)."""
    same, apart = [0.0, 0.0], [3 * math.log(3), 0.0]
    loss = function_space_loss(torch.tensor([same, apart]), torch.tensor([apart, same]), torch.tensor([1.0, 3.0]), 3.0)
    cross_entropies = math.log(2), -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert loss.item() == pytest.approx(9 * (cross_entropies[0] + 3 * cross_entropies[1]) / 4, rel=1e-6)


def test_soft_labels_at_the_old_logits_have_no_gradient_at_any_temperature():
    logits = torch.randn(4, 3, requires_grad=True)
    for temperature in (1.0, 3.0):
        loss = function_space_loss(logits, logits.detach(), torch.ones(4), temperature)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.abs().max() < 1e-6


def test_weights_are_relative_and_classes_new_since_are_left_out():
    logits, old = torch.randn(4, 5), torch.randn(4, 3)
    w = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert torch.allclose(function_space_loss(logits, old, w), function_space_loss(logits[:, :3], old, 10 * w))


def test_weight_space_holds_a_grown_layer_where_it_was():
    layer = nn.Linear(2, 3)
    mean = {"weight": torch.zeros(2, 2)}
    loss = weight_space_loss(layer, mean, {"weight": torch.full((2, 2), 4.0)})
    assert torch.allclose(loss, 2 * layer.weight[:2].square().sum())
