"""Examples taken out: exact where the loss is quadratic, true to retraining where it is nearly, and what is refused."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesdual.merging import remove
from bayesdual.posterior import KroneckerFactors, Posterior, ggn_diagonal, kronecker_curvature

DELTA = 2.0


def fitted(network, x, y):
    """At the minimum of the loss of all examples and the prior."""
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        prior = DELTA / 2 * sum(p.square().sum() for p in network.parameters())
        value = F.cross_entropy(network(x), y, reduction="sum") + prior
        value.backward()
        return value

    optimizer.step(loss)
    return network.eval()


@pytest.fixture(scope="module")
def learned():
    torch.manual_seed(0)
    x = torch.randn(120, 6)
    y = (x @ torch.randn(6, 3) + torch.randn(120, 3)).argmax(1)
    network = fitted(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), x, y)
    g = torch.Generator().manual_seed(0)
    mean = {name: p.detach().clone() for name, p in network.named_parameters()}
    posterior = Posterior(mean, ggn_diagonal(network, x, torch.ones(120), pairs=5000, generator=g), DELTA)
    return network, posterior, kronecker_curvature(network, x, torch.ones(120), pairs=5000, generator=g), x, y


def test_factors_are_solved_exactly():
    g = torch.Generator().manual_seed(0)
    a, b, x = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((4, 5), (3, 4), (3, 4)))
    h = KroneckerFactors(a @ a.T, b @ b.T)
    torch.testing.assert_close(h.solve(h @ x + 0.7 * x, 0.7), x)


@pytest.mark.parametrize("kind", ["diagonal", "kronecker"])
def test_the_change_of_each_example_is_that_of_training_without_it(learned, kind):
    network, posterior, factors, x, y = learned
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    predicted, real = [], []
    for i in range(25):
        one, keep = slice(i, i + 1), torch.arange(120) != i
        without = remove(posterior, network, x[one], y[one], factors if kind == "kronecker" else None)
        again = fitted(copy.deepcopy(network), x[keep], y[keep])
        old, new = (F.cross_entropy(n(x[one]), y[one]).item() for n in (network, again))
        step = F.cross_entropy(torch.func.functional_call(network, without.mean, (x[one],)), y[one]).item()
        predicted.append(step - old)
        real.append(new - old)
    ranks = torch.tensor([predicted, real]).argsort(1).argsort(1).double()
    assert torch.corrcoef(ranks)[0, 1] > 0.9
    slope = sum(p * r for p, r in zip(predicted, real, strict=True)) / sum(r * r for r in real)
    assert 0.5 < slope < (2 if kind == "kronecker" else 6), "factors are nearer to the size of the change"
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_what_examples_added_to_the_curvature_is_taken_out(learned):
    network, posterior, _, x, y = learned
    some = remove(posterior, network, x[:20], y[:20])
    exact = ggn_diagonal(network, x[:20], torch.ones(20), pairs=20_000, generator=torch.Generator().manual_seed(1))
    for name, h in posterior.curvature.items():
        assert (some.curvature[name] - (h - exact[name]).clamp_min(0)).norm() < 0.03 * h.norm()
    every = remove(posterior, network, x.repeat(3, 1), y.repeat(3))
    assert all(bool((h == 0).all()) for h in every.curvature.values()) and every.prior_precision == DELTA


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p, n, x, y: (p, n, x[:0], y[:0]), "there are 0 inputs and 0 labels"),
        (lambda p, n, x, y: (p, n, x[:3], y[:2]), "there are 3 inputs and 2 labels"),
        (lambda p, n, x, y: (p, nn.Linear(6, 3), x[:3], y[:3]), "of another network: '0.bias' has not its shape"),
        (lambda p, n, x, y: (Posterior(p.mean, p.precision), n, x[:3], y[:3]), "has no prior precision"),
    ],
)
def test_what_cannot_be_is_refused(learned, change, sentence):
    network, posterior, _, x, y = learned
    with pytest.raises(ValueError, match=sentence):
        remove(*change(posterior, network, x, y))
