"""The posterior of all data, from what stands for it: against exact curvature, and through its file."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from bayesdual.memory import Exemplars, Memory, stand_ins
from bayesdual.models import CNN, MLP
from bayesdual.posterior import Posterior, StandIns, drawn_examples, joined, posterior_of_past
from bayesdual.prediction import prediction_by, probit
from bayesdual.stream import TensorData


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def past(n=40, shape=(6,)):
    torch.manual_seed(0)
    return StandIns(torch.randn(n, *shape), torch.zeros(n, dtype=torch.int64), torch.rand(n) * 20 + 1)


def predict_by(network):
    return lambda x, t: network(x)


def exact(network, some):
    """sum_i w_i J_i^T Lambda_i J_i of the network's parameters, diagonal, by name."""
    weights = {name: p.detach() for name, p in network.named_parameters()}
    j = vmap(jacrev(lambda w, x: functional_call(network, w, (x[None],))[0]), (None, 0))(weights, some.inputs)
    p = network(some.inputs).softmax(1).detach()
    lam = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return {n: torch.einsum("b,bc...,bcd,bd...->...", some.weights, v, lam, v) for n, v in j.items()}


@pytest.mark.parametrize("network, shape", [(lambda: MLP(6, [8], 4), (6,)), (lambda: CNN(8, n_classes=4), (1, 8, 8))])
def test_curvature_is_that_of_all_that_is_stood_for_and_the_last_layer_s_in_full(network, shape):
    some = past(shape=shape)
    net = network().eval()
    found = posterior_of_past(net, predict_by(net), some, generator(), pairs=20_000)
    for name, value in exact(net, some).items():
        assert (found.curvature[name] - value).norm() < 0.06 * value.norm(), name
        torch.testing.assert_close(found.precision[name], found.curvature[name] + found.prior_precision)
    last = found.last_layer
    h = last.precision()
    diagonal = h.diagonal().view(4, -1) - last.prior_precision
    weight, bias = (exact(net, some)[f"{last.name}.{kind}"] for kind in ("weight", "bias"))
    torch.testing.assert_close(diagonal, torch.cat([weight, bias[:, None]], 1), rtol=1e-3, atol=1e-3)
    phi = torch.randn(5, weight.shape[1])
    full = torch.linalg.inv(h.double()).view(4, -1, 4, weight.shape[1] + 1)
    one = nn.functional.pad(phi, (0, 1), value=1.0).double()
    expected = torch.stack([torch.einsum("bi,ij,bj->b", one, full[c, :, c], one) for c in range(4)], 1)
    torch.testing.assert_close(last.variance(phi).double(), expected, rtol=1e-3, atol=1e-6)


def test_a_linearised_prediction_is_less_sure_by_the_variance_of_the_logits():
    net, some = MLP(6, [8], 4).eval(), past()
    found = posterior_of_past(net, predict_by(net), some, generator())
    x, t = torch.randn(7, 6), torch.zeros(7, dtype=torch.int64)
    p = prediction_by("linearised")(net, predict_by(net), found, x, t)
    f, phi = net(x).detach(), nn.Sequential(*list(net)[:-1])(x).detach()
    torch.testing.assert_close(p, (f / (1 + 3.141593 / 8 * found.last_layer.variance(phi)).sqrt()).softmax(1))
    sampled = prediction_by("samples", 4000)(net, predict_by(net), found, x, t)
    assert (sampled - p).abs().max() < 0.05 < 1 / 4 and torch.allclose(probit(f, torch.zeros_like(f)), f)
    with pytest.raises(ValueError, match="there is no posterior of a last layer"):
        prediction_by("linearised")(net, predict_by(net), None, x, t)
    with pytest.raises(ValueError, match="prediction is 'median': give one of mean, samples, linearised"):
        prediction_by("median")


def test_the_file_gives_it_back_and_says_when_it_is_of_another_network(tmp_path):
    net, some = MLP(6, [8], 4).eval(), past()
    found = posterior_of_past(net, predict_by(net), some, generator())
    found.save(tmp_path / "posterior.safetensors")
    again = Posterior.load(tmp_path / "posterior.safetensors", net)
    for name, value in found.precision.items():
        assert torch.equal(again.precision[name], value) and torch.equal(again.mean[name], found.mean[name])
    assert again.prior_precision == found.prior_precision > 0
    assert torch.equal(again.last_layer.variance(torch.ones(2, 8)), found.last_layer.variance(torch.ones(2, 8)))
    with pytest.raises(ValueError, match="is of another network: 1.bias has shape"):
        Posterior.load(tmp_path / "posterior.safetensors", MLP(6, [9], 4))
    assert found.knows_data and "marked" in found.summary() and "no mark" not in found.summary()
    unmarked = Posterior(found.mean, {n: torch.zeros_like(v) for n, v in found.curvature.items()}, 8.0)
    assert not unmarked.knows_data and "no mark" in unmarked.summary()


def test_stand_ins_of_a_memory_have_the_moments_of_what_it_stands_for():
    x = torch.cat([torch.full((1, 1, 4, 4), v, dtype=torch.uint8) for v in (100, 200)])
    zeros = torch.zeros(2, dtype=torch.int64)
    z = Exemplars(x, zeros, zeros, torch.zeros(2, 3), torch.tensor([10.0, 30.0]), torch.zeros(2), zeros, zeros)
    memory = Memory(2)
    memory.load_state_dict({"budget": 2, "counts": [[0, 0, 40]], "exemplars": z.tensors()})
    memory.spread.add(30 * torch.randn(40, 1, 4, 4, generator=generator()), generator())
    some = stand_ins(memory, (0.5,), (0.25,), generator())
    levels = some.inputs * (255 * 0.25) + 255 * 0.5
    assert some.weights.sum() == pytest.approx(40) and len(some.inputs) >= 1600
    mean = (levels * some.weights.view(-1, 1, 1, 1)).sum(0) / 40
    assert (mean - 175).abs().max() < 6 and levels.max() > 255  # neither clamped
    assert not torch.equal(levels, levels.round())  # nor rounded


def test_real_examples_stand_for_their_experience():
    x, y = torch.randn(50, 6), torch.zeros(50, dtype=torch.int64)
    some = drawn_examples(TensorData(x, y, y, y), 20, generator())
    assert some.weights.tolist() == [2.5] * 20 and len({tuple(row) for row in some.inputs.tolist()}) == 20
    assert len(joined([some, some]).weights) == 40
