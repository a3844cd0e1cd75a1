"""Measured curvature against all of J, and what it refuses."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from bayesdual.models import CNN, MLP
from bayesdual.posterior import draw_pairs, ggn_diagonal, squared_gradients

NETWORKS = {
    "mlp": (lambda: MLP(12, [8, 7], 5), (12,)),
    "cnn": (lambda: CNN(8, n_classes=5), (1, 8, 8)),
    "norms and groups": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.LayerNorm(64),
            nn.Linear(64, 5, bias=False),
        ),
        (2, 6, 6),
    ),
}


class Tied(nn.Module):
    """One layer called twice, which no rule explains."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


def made(network, shape, n=7):
    torch.manual_seed(0)
    return network().double().eval(), torch.randn(n, *shape, dtype=torch.float64)


def jacobians(model, x):
    weights = {name: p.detach() for name, p in model.named_parameters()}
    one = lambda w, xi: functional_call(model, w, (xi[None],))[0]  # noqa: E731
    return vmap(jacrev(one), (None, 0))(weights, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_squared_gradients_are_those_of_single_examples(name):
    model, x = made(*NETWORKS[name])
    e = torch.randn(len(x), 5, dtype=torch.float64)
    got, j = squared_gradients(model, x, e), jacobians(model, x)
    assert got.keys() == dict(model.named_parameters()).keys()
    for key, value in got.items():
        torch.testing.assert_close(value, torch.einsum("bc,bc...->b...", e, j[key]).square().sum(0), rtol=1e-9, atol=0)


def test_tied_weights_are_as_exact_and_frozen_ones_left_out():
    model, x = made(Tied, (6,))
    model.last.weight.requires_grad_(False)
    e = torch.randn(len(x), 4, dtype=torch.float64)
    got, j = squared_gradients(model, x, e), jacobians(model, x)
    assert got.keys() == {"layer.weight", "layer.bias", "last.bias"}
    for key, value in got.items():
        torch.testing.assert_close(value, torch.einsum("bc,bc...->b...", e, j[key]).square().sum(0), rtol=1e-9, atol=0)
    assert not model.last.weight.requires_grad and model.layer.weight.requires_grad


def test_small_memory_gives_the_same():
    model, x = made(*NETWORKS["cnn"])
    e = torch.randn(len(x), 5, dtype=torch.float64)
    a, b = squared_gradients(model, x, e), squared_gradients(model, x, e, memory_limit=1)
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-9, atol=0)


def test_the_mean_over_draws_is_the_ggn():
    model, x = made(*NETWORKS["mlp"])
    w = torch.linspace(0.5, 20, len(x), dtype=torch.float64)
    p, j = model(x).softmax(1).detach(), jacobians(model, x)
    lam = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    draws = [ggn_diagonal(model, x, w, pairs=500, generator=torch.Generator().manual_seed(s)) for s in range(40)]
    for key in j:
        exact = torch.einsum("b,bc...,bcd,bd...->...", w, j[key], lam, j[key])
        mean = torch.stack([draw[key] for draw in draws]).mean(0)
        assert (mean - exact).norm() < 0.01 * exact.norm(), key


def test_pairs_are_drawn_by_weight_and_uncertainty():
    logits = torch.tensor([[30.0, 0, 0], [0, 0, 0], [0, 0, 0]])  # the first is sure
    rows, directions = draw_pairs(logits, torch.tensor([100.0, 1.0, 3.0]), 400, torch.Generator().manual_seed(0))
    assert rows.bincount(minlength=3).tolist() == [0, 100, 300]
    # sum_k p_k |r_k|^2 = 1 - |p|^2 = 2/3 for each example
    torch.testing.assert_close(directions.square().sum(), torch.tensor((1 + 3) * 2 / 3))


def test_batch_norm_in_train_mode_is_refused():
    model, x = made(*NETWORKS["norms and groups"])
    with pytest.raises(ValueError, match="train mode"):
        ggn_diagonal(model.train(), x, torch.ones(len(x)))
