"""What follows from a likelihood is what its equations say, and the K-prior of all data is the loss of the past."""

import math

import pytest
import torch
from torch import nn

from bayesdual import BayesDual
from bayesdual.kprior import KroneckerPrior, factors
from bayesdual.likelihoods import Bernoulli, Categorical, Gaussian, Poisson, likelihood_by
from bayesdual.posterior import draw_pairs
from bayesdual.stream import TensorData

G = torch.Generator
LIKELIHOODS = {
    "categorical": (Categorical(), torch.tensor([0, 2, 1, 2])),
    "gaussian": (Gaussian(noise=0.7, location=3.0, scale=2.0), torch.tensor([1.0, 4.5, -2.0, 3.0])),
    "poisson": (Poisson(), torch.tensor([0.0, 2.0, 1.0, 5.0])),
    "bernoulli": (Bernoulli(), torch.tensor([0, 1, 1, 0])),
}


@pytest.fixture(params=LIKELIHOODS)
def known(request):
    """A likelihood, outputs and targets."""
    likelihood, y = LIKELIHOODS[request.param]
    width = 3 if request.param == "categorical" else 1
    return likelihood, torch.randn(4, width, generator=G().manual_seed(0), dtype=torch.float64), y


def test_residual_and_curvature_are_derivatives_of_the_loss(known):
    likelihood, f, y = known
    unit = getattr(likelihood, "unit", 1.0)
    first = torch.func.grad(lambda f: likelihood.loss(f, y).sum() * unit)(f)
    assert torch.allclose(likelihood.residual(f, y), first)
    hessian = torch.func.hessian(lambda f: likelihood.loss(f, y).sum() * unit)(f)
    own = torch.einsum("ncnd->ncd", hessian)
    assert torch.allclose(likelihood.curvature(f), own.diagonal(dim1=1, dim2=2))
    if likelihood.name != "categorical":  # where a shift of all logits is free
        assert torch.allclose(likelihood.link(likelihood.mean(f)), f)


def test_the_curvature_is_the_sum_and_the_mean_of_its_factors(known):
    likelihood, f, y = known
    unit = getattr(likelihood, "unit", 1.0)
    hessian = torch.einsum("ncnd->ncd", torch.func.hessian(lambda f: likelihood.loss(f, y).sum() * unit)(f))
    lengths, total = likelihood.squared_lengths(f), torch.zeros_like(hessian)
    for k in range(lengths.shape[1]):
        along = nn.functional.normalize(likelihood.directions(f, torch.full((4,), k)), dim=1)
        total += lengths[:, k, None, None] * along[:, :, None] * along[:, None, :]
    assert torch.allclose(total, hessian)
    k, c = torch.cartesian_prod(torch.arange(lengths.shape[1]), torch.arange(f.shape[1])).unbind(1)
    entries = likelihood.factor_entries(f, k, c).view(4, -1, f.shape[1])
    assert torch.allclose(torch.einsum("nkc,nkd->ncd", entries, entries), hessian)
    drawn = likelihood.drawn_factor(f.repeat_interleave(20_000, 0), G().manual_seed(0)).view(4, 20_000, -1)
    assert torch.allclose(torch.einsum("nsc,nsd->ncd", drawn, drawn) / 20_000, hessian / unit, atol=0.02)
    rows, directions = draw_pairs(f, torch.ones(4), 40_000, G().manual_seed(0), likelihood)
    outer = torch.zeros_like(hessian).index_add_(0, rows, directions[:, :, None] * directions[:, None, :])
    assert torch.allclose(outer, hessian, atol=0.02 * float(hessian.diagonal(dim1=1, dim2=2).sum()))


def test_soft_targets_pull_to_what_was_said_before_at_any_temperature(known):
    likelihood, f, _ = known
    for temperature in (1.0, 3.0):
        pull = torch.func.grad(lambda f, t=temperature: likelihood.soft_loss(f, known[1], t).sum())
        assert torch.allclose(pull(f), torch.zeros_like(f), atol=1e-12)
        assert pull(f + 0.1 * torch.eye(4, f.shape[1])).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("likelihood", "f", "y", "law"),
    [
        (Gaussian(2.0, 10.0, 5.0), 0.3, 12.0, lambda: torch.distributions.Normal(11.5, 2.0)),
        (Poisson(), 0.3, 2.0, lambda: torch.distributions.Poisson(math.exp(0.3))),
        (Bernoulli(), 0.3, 1, lambda: torch.distributions.Bernoulli(logits=torch.tensor(0.3))),
    ],
)
def test_the_nll_is_that_of_the_law(likelihood, f, y, law):
    nll = likelihood.nll(likelihood.predicted(torch.tensor([[f]])), torch.tensor([y]))
    assert float(nll) == pytest.approx(-float(law().log_prob(torch.tensor(float(y)))), abs=1e-5)


def optimum(loss, w):
    """The weights of least loss."""
    w = w.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [w], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = loss(w)
        value.backward()
        return value

    optimizer.step(closure)
    return w.detach()


@pytest.mark.parametrize("name", ["gaussian", "poisson", "bernoulli"])
def test_with_all_data_in_memory_a_generalised_linear_model_is_that_of_all_data(name):
    draw = G().manual_seed(0)
    x = torch.randn(60, 3, generator=draw, dtype=torch.float64)
    f = x @ torch.tensor([0.5, -0.4, 0.3], dtype=torch.float64)
    y = {
        "gaussian": lambda: (f + torch.randn(60, generator=draw)).float(),
        "poisson": lambda: torch.poisson(f.exp(), generator=draw).float(),
        "bernoulli": lambda: torch.bernoulli(f.sigmoid(), generator=draw).long(),
    }[name]()
    likelihood = Gaussian(0.8, 0.0, 1.0) if name == "gaussian" else likelihood_by(name)
    algorithm = BayesDual(
        40, 40, 0.0, None if name == "gaussian" else 1.0, None, condensation=None, spread=0, likelihood=likelihood
    )
    model = nn.Linear(3, 1, bias=False).double()

    likelihood.look_at(y[:40])

    def predict(x, t):
        return model(x)

    def loss_of(rows):
        return lambda w: likelihood.loss(x[rows] @ w.T, y[rows]).sum()

    old, new = slice(0, 40), slice(40, 60)
    with torch.no_grad():
        model.weight.copy_(optimum(loss_of(old), model.weight.detach()))
    data = TensorData(x[old], y[old], torch.zeros(40, dtype=torch.int64), torch.arange(40))
    algorithm.begin_experience(data)
    algorithm.end_experience(model, predict, data, 0)
    algorithm.begin_experience(TensorData(x[new], y[new], torch.zeros(20, dtype=torch.int64), torch.arange(20)))

    def continued(w):
        z = algorithm.replay()
        new_loss = algorithm.criterion(x[new] @ w.T, y[new])
        return algorithm.total_loss(model, new_loss, z.x @ w.T, z)[0]

    learned, joint = optimum(continued, model.weight.detach()), optimum(loss_of(slice(0, 60)), model.weight.detach())
    assert torch.allclose(learned, joint, atol=1e-5)
    assert not torch.allclose(optimum(loss_of(new), joint), joint, atol=1e-2), "the new data alone say otherwise"


def test_a_number_is_taken_in_units_of_the_first_experience_and_its_noise_is_estimated():
    likelihood = Gaussian()
    likelihood.look_at(torch.tensor([90.0, 110.0]))
    likelihood.look_at(torch.tensor([0.0, 1.0]))  # of a later one
    assert (likelihood.location, likelihood.scale, likelihood.noise) == (100.0, 10.0, 10.0)
    assert likelihood.predicted(torch.tensor([[0.5]])).item() == 105.0
    f = torch.zeros(2, 1)
    likelihood.learned(f, torch.tensor([98.0, 102.0]), 300, 0)
    likelihood.learned(f, torch.tensor([96.0, 104.0]), 100, 1)
    likelihood.learned(f, torch.tensor([96.0, 104.0]), 100, 1)  # seen again
    assert likelihood.noise == pytest.approx(((300 * 4 + 100 * 16) / 400) ** 0.5)
    assert likelihood.curvature(f)[0, 0] == pytest.approx((10 / likelihood.noise) ** 2)
    assert likelihood.loss(f, torch.tensor([110.0, 100.0])).tolist() == [1 / 8, 0.0], "the loss keeps its scale"
    again = Gaussian()
    again.load_state_dict(likelihood.state_dict())
    assert vars(again) == vars(likelihood)
    given = Gaussian(noise=2.0)
    given.learned(f, torch.tensor([1e3, 1e3]), 5, 0)
    assert given.noise == 2.0
    with pytest.raises(ValueError, match="noise None, and it is 2.0: give the same"):
        given.load_state_dict(likelihood.state_dict())


def test_the_prior_of_the_weights_measures_the_likelihood_of_its_algorithm():
    algorithm = BayesDual(10, weight_prior=KroneckerPrior(temperature=1.0), likelihood="poisson")
    assert algorithm.weight_prior.likelihood is algorithm.likelihood
    model = nn.Linear(2, 1, bias=False)
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    pair = factors(model, lambda x, t: model(x), x, torch.zeros(2), 1.0, G(), algorithm.likelihood)[""]
    assert torch.allclose(pair["outputs"], model(x).exp().mean().view(1, 1) / 4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BayesDual(likelihood="laplace"), "likelihood is 'laplace': give one of categorical, gaussian"),
        (lambda: BayesDual(likelihood="gaussian", temperature=2.0), "has no effect on the gaussian"),
        (lambda: BayesDual(likelihood="poisson", memory_bytes=4000), "memory_bytes codes classes, .* give memory_size"),
        (lambda: Gaussian(noise=0.0), "noise is 0.0: give a positive number"),
        (lambda: Gaussian(score="accuracy"), "score is 'accuracy': give one of rmse, mae, nll, r2"),
        (lambda: Gaussian().targets(["a", "b"], "it"), "targets of it are not one number"),
        (lambda: Gaussian().targets(torch.zeros(2, 2), "it"), r"have shape \(N, 2\): give one number"),
        (lambda: Gaussian().targets([1.0, math.nan], "it"), "target of example 1 .* of it is nan"),
        (lambda: Poisson().targets([1.0, 2.5], "it"), "target of example 1 .* is 2.5, which is no count"),
        (lambda: Poisson().targets([1.0, -2.0], "it"), "which is no count"),
        (lambda: Bernoulli().targets([0, 2], "it"), "has the label 2, .* give likelihood categorical"),
        (lambda: Gaussian().loss(torch.zeros(3, 2), torch.zeros(3)), r"outputs of shape \(3, 2\): give it one output"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_checkpoint_of_another_likelihood_is_refused():
    with pytest.raises(ValueError, match="made with the likelihood gaussian, and algorithm.likelihood is poisson"):
        BayesDual(likelihood="poisson").load_state_dict(BayesDual(likelihood="gaussian").state_dict())


def test_a_linear_network_of_one_output_has_no_bound_of_the_softmax():
    draw = G().manual_seed(0)
    x, y = torch.randn(200, 64, generator=draw), torch.randint(2, (200,), generator=draw)
    for likelihood, width in (("categorical", 2), ("bernoulli", 1)):
        model = nn.Linear(64, width)
        algorithm = BayesDual(memory_bytes=3000, likelihood=likelihood)
        data = TensorData(x, y, torch.zeros(200, dtype=torch.int64), torch.arange(200))
        algorithm.begin_experience(data)
        algorithm.end_experience(model, lambda x, t, model=model: model(x), data, 0)
        assert (algorithm.holding.residual is None) == (likelihood == "bernoulli")
        algorithm.loss(model, lambda x, t, model=model: model(x), x[:8], y[:8], data.tasks[:8])[0].backward()
