"""The Kronecker prior: its factors, what it holds and what it leaves free."""

import pytest
import torch
from torch import nn

from bayesdual.kprior import KroneckerPrior, factors, leading_eigenvectors
from bayesdual.stream import TensorData


def data(n=400, d=6, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    y = torch.zeros(n, dtype=torch.int64)
    return TensorData(x, y, y, torch.arange(n))


def predictor(net):
    return lambda x, t: net(x)


def test_factors_are_those_of_the_curvature_of_a_linear_model():
    """For one linear layer, G -> mean of Lambda_T and A = mean of a a^T."""
    torch.manual_seed(0)
    net, d = nn.Linear(6, 3), data(20000)
    got = factors(net, predictor(net), d.x, d.tasks, 2.0, torch.Generator().manual_seed(0))[""]
    p = (net(d.x) / 2).softmax(1)
    want = torch.diag(p.mean(0)) - p.T @ p / len(p)
    assert torch.allclose(got["outputs"], want, atol=0.01)
    a = torch.cat([d.x, torch.ones(20000, 1)], 1)
    assert torch.allclose(got["inputs"], a.T @ a / 20000, atol=1e-4)


@pytest.mark.parametrize("size", [12, 200])
def test_leading_eigenvectors(size):
    basis = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(0))).Q
    values = 0.5 ** torch.arange(size)
    matrix = basis @ torch.diag(values) @ basis.T
    got, vectors = leading_eigenvectors(matrix, 5, torch.Generator().manual_seed(0))
    assert torch.allclose(got.flip(0), values[:5], atol=1e-4)
    assert torch.allclose(matrix @ vectors, vectors * got, atol=1e-4)


def test_eigenvalues_that_are_nan_in_float32_are_taken_in_float64(monkeypatch):
    """MKL's of a finite matrix with rows of zeros were."""
    whole = torch.linalg.eigh

    def broken(matrix):
        values, vectors = whole(matrix)
        return (values * torch.nan, vectors * torch.nan) if matrix.dtype == torch.float32 else (values, vectors)

    expected = whole(torch.diag(torch.arange(12.0)))
    monkeypatch.setattr(torch.linalg, "eigh", broken)
    values, vectors = leading_eigenvectors(torch.diag(torch.arange(12.0)), 5, torch.Generator())
    assert values.dtype == torch.float32 and torch.equal(values, expected[0][-5:])
    assert torch.equal(vectors.abs(), expected[1][:, -5:].abs())


@pytest.mark.parametrize("cap", [1e9, 0.5])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_quadratic_form_of_the_capped_kronecker_product(cap, bias):
    """1/2 vec(dW)^T P vec(dW), with the eigenvalues of P = c G (x) A cut at the cap."""
    torch.manual_seed(0)
    net = nn.Linear(6, 3, bias=bias)
    prior = KroneckerPrior(strength=2.0, cap=cap)
    prior.update(net, predictor(net), data(), None, "cpu", torch.Generator().manual_seed(0))
    (pair,) = prior.state_dict()["factors"].values()
    values, vectors = torch.linalg.eigh(2.0 * torch.kron(pair["outputs"], pair["inputs"]))
    assert bool((values > cap).any()) == (cap == 0.5) and (values < 0.5).any()
    old = [p.detach().clone() for p in net.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
        moved = [p - o for p, o in zip(net.parameters(), old, strict=True)]
    change = torch.cat([moved[0], moved[1][:, None]], 1) if bias else moved[0]
    want = 0.5 * (values.clamp(0, cap) * (vectors.T @ change.flatten()).square()).sum()
    assert prior.loss(net).item() == pytest.approx(want.item(), rel=1e-4)


def test_factors_are_means_over_all_past_examples():
    torch.manual_seed(0)
    net, prior = nn.Sequential(nn.Linear(6, 3)), KroneckerPrior()
    parts, generator = [data(300, seed=1), data(100, seed=2)], torch.Generator().manual_seed(0)
    for part in parts:
        prior.update(net, predictor(net), part, None, "cpu", generator)
    a = torch.cat([torch.cat([part.x for part in parts]), torch.ones(400, 1)], 1)
    assert torch.allclose(prior.state_dict()["factors"]["0"]["inputs"], a.T @ a / 400, atol=1e-5)


def test_holds_directions_of_the_data_and_not_others():
    torch.manual_seed(0)
    d = data()
    d.x[:, 3:] = 0  # the past never used these inputs
    net = nn.Sequential(nn.Linear(6, 3))
    prior = KroneckerPrior(strength=1.0, cap=100.0)
    assert prior.loss(net) is None
    prior.update(net, predictor(net), d, None, "cpu", torch.Generator().manual_seed(0))
    assert prior.loss(net) < 1e-12
    with torch.no_grad():
        net[0].weight[:, 3:] += 1
    assert prior.loss(net) < 1e-6
    with torch.no_grad():
        net[0].weight[0, 0] += 1
    assert prior.loss(net) > 0.01


def test_the_past_is_a_running_mean_and_survives_a_state_dict():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    one, two = KroneckerPrior(), KroneckerPrior()
    for prior in (one, two):
        generator = torch.Generator().manual_seed(1)
        prior.update(net, predictor(net), data(300, seed=1), None, "cpu", generator)
        if prior is two:
            two = KroneckerPrior()
            two.load_state_dict(prior.state_dict())
            prior = two
        prior.update(net, predictor(net), data(100, seed=2), None, "cpu", generator)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1)
    assert one.loss(net) == two.loss(net) > 0
    assert one.state_dict()["count"] == 400


def test_a_head_that_grew_is_held_where_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 2))
    prior = KroneckerPrior()
    prior.update(net, predictor(net), data(), None, "cpu", torch.Generator())
    wide = nn.Sequential(nn.Linear(6, 4))
    with torch.no_grad():
        wide[0].weight[:2], wide[0].bias[:2] = net[0].weight, net[0].bias
    assert prior.loss(wide) < 1e-10
    prior.update(wide, predictor(wide), data(), None, "cpu", torch.Generator())
    assert prior.state_dict()["factors"]["0"]["outputs"].shape == (4, 4)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.heads = nn.Linear(6, 5), nn.ModuleList([nn.Linear(5, 3) for _ in range(2)])

    def forward(self, x, t):
        return self.heads[int(t[0])](self.body(x).relu())


def test_heads_of_other_tasks_are_held_too_in_proportion_to_their_examples():
    torch.manual_seed(0)
    net, prior, generator = Heads(), KroneckerPrior(), torch.Generator().manual_seed(0)
    for task, n in ((0, 300), (1, 100)):
        x = data(n, seed=task)
        prior.update(net, net, TensorData(x.x, x.y, x.tasks + task, x.index), None, "cpu", generator)
        if task == 0:
            alone = prior.state_dict()["factors"]["heads.0"]
    after = prior.state_dict()["factors"]["heads.0"]
    assert torch.allclose(after["outputs"], 0.75 * alone["outputs"]) and torch.equal(after["inputs"], alone["inputs"])
    assert prior.loss(net) < 1e-10
    with torch.no_grad():
        net.heads[0].weight[0].add_(0.1)  # the same for all logits would change nothing
    assert prior.loss(net) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_and_coarse_weights_do_not_make_the_prior_pull_at_its_own_anchor(dtype):
    torch.manual_seed(0)
    net, prior = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3)).to(dtype), KroneckerPrior()
    prior.update(net, lambda x, t: net(x.to(dtype)), data(), None, "cpu", torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = prior.loss(net)
    assert loss < 1e-10 and max(g.abs().max() for g in torch.autograd.grad(loss, list(net.parameters()))) < 1e-6


def test_a_network_without_linear_layers_that_see_whole_inputs_is_left_free():
    net = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    prior = KroneckerPrior()
    prior.update(net, predictor(net), data(), None, "cpu", torch.Generator())
    assert prior.loss(net) is None


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="KroneckerPrior's cap is 0"):
        KroneckerPrior(cap=0)
