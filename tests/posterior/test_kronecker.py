"""Kronecker factors of the curvature: against all of J, for layers with positions, and what has none."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from bayesdual.models import CNN, MLP
from bayesdual.posterior import KroneckerFactors, ggn_diagonal, kronecker_curvature

WEIGHTS = torch.tensor([1.0, 2.0, 4.0, 0.5, 3.0])


class Spread(nn.Module):
    """A linear layer at several positions, with the batch behind them, and a head."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 3), nn.Linear(3, 3, bias=False)

    def forward(self, x):
        return self.head(self.inner(x.flatten(1, 2).transpose(0, 1)).tanh().mean(0))


def measured(network, x, temperature=1.0, pairs=10_000):
    return kronecker_curvature(
        network, x, WEIGHTS, pairs=pairs, temperature=temperature, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_factors_of_one_linear_layer_are_sums_and_means_over_examples(temperature):
    torch.manual_seed(0)
    network, x = nn.Linear(6, 3), torch.randn(5, 6)
    (h,) = measured(network, x, temperature).values()
    a = torch.cat([x, torch.ones(5, 1)], 1)
    torch.testing.assert_close(h.inputs, (a * WEIGHTS[:, None]).T @ a)
    p = (network(x) / temperature).softmax(1).detach()
    lam = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    torch.testing.assert_close(h.outputs, (WEIGHTS[:, None, None] * lam).sum(0) / WEIGHTS.sum(), rtol=0.04, atol=2e-3)
    assert h.bias == "bias"


@pytest.mark.parametrize("network", [lambda: CNN(4, n_classes=3), Spread, lambda: MLP(16, [8], 3)])
def test_the_factors_have_sums_of_squares_at_every_position(network):
    """A from the inputs that hooks see; the trace of G (x) A against J, for a layer whose outputs are told apart."""
    torch.manual_seed(0)
    network, x = network().eval(), torch.randn(5, 1, 4, 4)
    curvature = measured(network, x)
    seen = {}
    for name, layer in network.named_modules():
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.__setitem__(name, (inputs[0], output)))
    f = network(x)
    lam = torch.diag_embed(f.softmax(1)) - f.softmax(1)[:, :, None] * f.softmax(1)[:, None]
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert {f"{name}.weight" for name in layers} == curvature.keys()
    for name, layer in layers.items():
        inputs, output = seen[name]
        if isinstance(layer, nn.Conv2d):
            a, positions = nn.functional.unfold(inputs, 3, padding=1).mT, output.shape[2:].numel()
        elif isinstance(network, Spread) and name == "inner":
            a, positions = inputs.transpose(0, 1), inputs.shape[0]
        else:
            a, positions = inputs[:, None], 1
        a = a if layer.bias is None else nn.functional.pad(a, (0, 1), value=1.0)
        h = curvature[f"{name}.weight"]
        torch.testing.assert_close(h.inputs, torch.einsum("b,bli,blj->ij", WEIGHTS, a, a), rtol=1e-4, atol=1e-4)
        j = torch.stack([torch.autograd.grad(f[:, c].sum(), output, retain_graph=True)[0] for c in range(3)])
        if isinstance(layer, nn.Conv2d):
            j = j.flatten(3).permute(1, 3, 0, 2)  # (B, L, C, O)
        elif positions > 1:
            j = j.permute(2, 1, 0, 3)
        else:
            j = j.transpose(0, 1)[:, None]
        g = torch.einsum("b,blco,bcd,bldp->op", WEIGHTS, j, lam, j) / positions / WEIGHTS.sum()
        assert (h.outputs - g).norm() < 0.04 * g.norm(), name


def test_what_has_no_factors_has_a_diagonal():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3)
    ).eval()
    network[3].bias.requires_grad_(False)
    x = torch.randn(5, 2, 4, 4)
    curvature = measured(network, x)
    diagonal = ggn_diagonal(network, x, WEIGHTS, pairs=10_000, generator=torch.Generator().manual_seed(0))
    assert curvature["3.weight"].bias is None and len(curvature["3.weight"].inputs) == 64
    assert {n for n, h in curvature.items() if isinstance(h, KroneckerFactors)} == {"3.weight"}
    assert curvature.keys() == diagonal.keys() == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight"}
    for name in curvature.keys() - {"3.weight"}:
        torch.testing.assert_close(curvature[name], diagonal[name])


def test_a_weight_that_is_used_twice_has_no_factors():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x).tanh())

    curvature = measured(Twice(), torch.randn(5, 3), pairs=50)
    assert all(isinstance(h, torch.Tensor) for h in curvature.values()) and len(curvature) == 2


def test_for_a_linear_model_the_diagonal_of_the_factors_is_near_that_of_the_curvature():
    torch.manual_seed(0)
    network, x = nn.Linear(6, 3), torch.randn(5, 6)
    h = measured(network, x)["weight"].diagonal()
    j = vmap(jacrev(lambda w, x: functional_call(network, w, (x,))), (None, 0))(
        {n: p.detach() for n, p in network.named_parameters()}, x
    )
    p = network(x).softmax(1).detach()
    lam = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    exact = torch.einsum("b,bcoi,bcd,bdoi->oi", WEIGHTS, j["weight"], lam, j["weight"])
    assert h.shape == (3, 7) and float((h[:, :6].sum() / exact.sum() - 1).abs()) < 0.3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"temperature": 0.0}, "temperature is 0.0"), ({"inputs": torch.zeros(0, 6)}, "holds no example")],
)
def test_arguments_are_checked(arguments, sentence):
    given = {"inputs": torch.zeros(2, 6), **arguments}
    with pytest.raises(ValueError, match=sentence):
        kronecker_curvature(nn.Linear(6, 3), given.pop("inputs"), torch.ones(2), **given)
