"""The posterior of all data: against all of J, with task labels, and where it cannot be known."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from bayesdual.models import CNN, MLP
from bayesdual.posterior import LastLayerPosterior, StandIns, drawn_examples, joined, posterior_of_past
from bayesdual.stream import TensorData

NETWORKS = {"mlp": (lambda: MLP(16, [8], 4), "3"), "cnn": (lambda: CNN(4, n_classes=4), "9")}


def past(n=12, tasks=1):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, 4, 4, generator=generator)
    return StandIns(x, torch.arange(n) % tasks, torch.linspace(1, 30, n))


def exact(network, predict, stand_ins):
    """All of the GGN by parameter name: J (N, C, ...) and Lambda (N, C, C)."""
    weights = {name: p.detach() for name, p in network.named_parameters()}
    masked = predict(stand_ins.inputs, stand_ins.tasks).detach() <= -1e4
    one = lambda w, x: functional_call(network, w, (x[None],))[0]  # noqa: E731
    j = vmap(jacrev(one), (None, 0))(weights, stand_ins.inputs)
    p = network(stand_ins.inputs).detach().masked_fill(masked, -1e4).softmax(1)
    return j, torch.diag_embed(p) - p[:, :, None] * p[:, None]


def masking(network):
    """Classes 0 and 1 are those of task 0, the others those of task 1."""
    allowed = torch.tensor([[True, True, False, False], [False, False, True, True]])
    return lambda x, t: network(x).masked_fill(~allowed[t], -1e4)


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_curvature_is_that_of_all_examples(name, tasks):
    torch.manual_seed(0)
    network, last = NETWORKS[name][0]().eval(), NETWORKS[name][1]
    predict = masking(network) if tasks == 2 else lambda x, t: network(x)
    stand_ins = past(tasks=tasks)
    posterior = posterior_of_past(network, predict, stand_ins, torch.Generator().manual_seed(0), 40_000, 5.0)
    j, lam = exact(network, predict, stand_ins)
    assert posterior.curvature.keys() == j.keys()
    for key, value in j.items():
        h = torch.einsum("b,bc...,bcd,bd...->...", stand_ins.weights, value, lam, value)
        assert (posterior.curvature[key] - h).norm() < 0.02 * h.norm(), key
        assert torch.equal(posterior.mean[key], dict(network.named_parameters())[key])
        torch.testing.assert_close(posterior.precision[key], posterior.curvature[key] + 5)
    of_last = torch.cat([j[f"{last}.weight"], j[f"{last}.bias"][..., None]], 3)  # (N, C, C, K)
    whole = torch.einsum("b,bcij,bcd,bdkl->ijkl", stand_ins.weights, of_last, lam, of_last)
    size = whole.shape[0] * whole.shape[1]
    expected = whole.reshape(size, size) + 5 * torch.eye(size)
    torch.testing.assert_close(posterior.last_layer.precision(), expected, rtol=1e-4, atol=1e-3)
    assert posterior.last_layer.name == last


def test_variances_and_samples_of_the_last_layer_are_those_of_the_inverse_precision():
    torch.manual_seed(0)
    last = LastLayerPosterior(
        "3", nn.functional.pad(torch.randn(9, 4), (0, 1), value=1.0), torch.rand(9, 3).softmax(1), torch.rand(9), 2.0
    )
    phi = torch.randn(6, 4)
    with_one = torch.cat([phi, torch.ones(6, 1)], 1)
    covariance = torch.linalg.inv(last.precision()).view(3, 5, 3, 5)
    v = torch.einsum("bi,cicj,bj->bc", with_one, covariance.permute(0, 1, 2, 3), with_one)
    torch.testing.assert_close(last.variance(phi), v, rtol=1e-4, atol=1e-5)
    drawn = last.deviations(phi, 20_000)
    assert drawn.shape == (20_000, 6, 3) and drawn.mean(0).abs().max() < 0.05
    torch.testing.assert_close(drawn.var(0), v, rtol=0.05, atol=0)
    between = torch.einsum("bi,cidj,bj->bcd", with_one, covariance, with_one)
    torch.testing.assert_close((drawn[:, :, 0] * drawn[:, :, 1]).mean(0), between[:, 0, 1], rtol=0.1, atol=0.01)


def test_a_last_layer_that_is_too_large_is_refused():
    last = LastLayerPosterior("3", torch.ones(1, 1000), torch.full((1, 9), 1 / 9), torch.ones(1), 1.0)
    with pytest.raises(ValueError, match="9000 weights, and covariances are computed of at most 8192"):
        last.variance(torch.ones(1, 1000))


class Scaled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(16, 2), nn.Linear(16, 2)])


def test_there_is_a_posterior_of_a_last_layer_only_where_the_logits_are_its_output():
    torch.manual_seed(0)
    g = torch.Generator()
    scaled = Scaled(nn.Flatten(), nn.Linear(16, 4))
    assert posterior_of_past(scaled, lambda x, t: scaled(x), past(), g).last_layer is None
    heads = Heads()
    posterior = posterior_of_past(heads, lambda x, t: heads.heads[int(t[0])](x.flatten(1)), past(tasks=2), g)
    assert posterior.last_layer is None
    assert all((h > 0).any() for h in posterior.curvature.values()) and len(posterior.curvature) == 4


def test_it_is_not_known_where_examples_are_not_apart_or_nothing_is_learned():
    mixing = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 4)).eval()
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).requires_grad_(False)
    for network in (mixing, frozen):
        assert posterior_of_past(network, lambda x, t, net=network: net(x), past(), torch.Generator()) is None


def test_examples_drawn_stand_for_all_as_the_network_takes_them():
    x = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1)
    y = torch.zeros(50, dtype=torch.int64)
    data = TensorData(x, y, y + 3, y, mean=(0.5,), std=(0.25,))
    some = drawn_examples(data, 20, torch.Generator().manual_seed(0))
    levels = ((some.inputs * 0.25 + 0.5) * 255).flatten().round().tolist()
    assert len(set(levels)) == 20 and set(levels) <= set(range(50))
    assert some.weights.tolist() == [2.5] * 20 and some.tasks.tolist() == [3] * 20
    both = joined([some, drawn_examples(data, 100, torch.Generator())])
    assert len(both.inputs) == 70 and float(both.weights.sum()) == pytest.approx(100)
