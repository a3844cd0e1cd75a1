"""The K-prior of a linear network on vectors: what the bound and the residual curvature are, and when they are used."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.kprior import Residual
from bayesdual.kprior.residual import TEMPERATURE
from bayesdual.memory import Exemplars, LowRankSpread
from bayesdual.models import MLP, linear_head
from bayesdual.stream import TensorData

D, C = 70, 4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cells(scale):
    """Vectors, examples around them (K, n, D), and the spread of these."""
    u = torch.randn(6, D, generator=generator(1))
    e = torch.randn(6, 400, D, generator=generator(2)) * scale
    e[..., :2] *= 5
    e = e - e.mean(1, keepdim=True)
    spread = LowRankSpread(20)
    spread.add(e.flatten(0, 1))
    return u, u[:, None] + e, spread


def memory_of(u):
    y = torch.arange(len(u)) % C
    zeros = torch.zeros_like(y)
    w = torch.full((len(u),), 400.0)
    return Exemplars(u, y, zeros, torch.zeros(len(u), C), w, w, zeros, zeros)


def network(scale=0.3):
    module = MLP(D, [], C)
    with torch.no_grad():
        linear_head(module).weight.copy_(torch.randn(C, D, generator=generator(3)) * scale)
        linear_head(module).bias.zero_()
    return module


def test_a_network_is_linear_if_it_is_one_layer_of_flattened_inputs():
    for module in (nn.Linear(3, 2), MLP(3, []), nn.Sequential(nn.Identity(), nn.Linear(3, 2))):
        assert isinstance(linear_head(module), nn.Linear)
    for module in (MLP(3, [4]), nn.Sequential(nn.Linear(3, 2), nn.ReLU()), nn.Conv2d(1, 1, 1), nn.Flatten()):
        assert linear_head(module) is None


def test_the_bound_is_above_the_expected_loss_and_near_it():
    u, x, spread = cells(0.1)
    module, z = network(0.5), memory_of(u)
    y = module(u).argmax(1)
    bound = Residual.of(module, z, spread, 2400).label_loss(module, module(u), y).item()
    expected = F.cross_entropy(module(x.flatten(0, 1)), y.repeat_interleave(400)).item()
    alone = F.cross_entropy(module(u), y).item()
    assert alone < expected < bound < expected + 0.7 * (expected - alone)


def test_vectors_and_residual_have_the_hessian_of_all_examples(monkeypatch):
    """At T = 1, along a change of the weights: function-space on all examples = on vectors + the residual."""
    monkeypatch.setattr("bayesdual.kprior.residual.TEMPERATURE", 1.0)
    u, x, spread = cells(0.4)
    module, z = network(0.05), memory_of(u)
    residual = Residual.of(module, z, spread, 2400)
    old, change = linear_head(module).weight.detach().clone(), torch.randn(C, D, generator=generator(4))

    def function_space(inputs, moved):
        p, q = (inputs @ old.T).softmax(1), (inputs @ (old + moved).T).log_softmax(1)
        return -(p * q).sum(1).mean() + (p * p.log()).sum(1).mean()

    step = 0.05 * change
    whole = function_space(x.flatten(0, 1), step)
    with torch.no_grad():
        linear_head(module).weight.add_(step)
    vectors, rest = function_space(u, step), residual.loss(module)
    assert rest > 0.05 * whole  # it matters
    torch.testing.assert_close(vectors + rest, whole, rtol=0.05, atol=0)


def test_the_residual_holds_columns_of_classes_that_do_not_exist_yet():
    u, _, spread = cells(0.3)
    module = network(2.0)
    residual = Residual.of(module, memory_of(u), spread, 2400)
    assert TEMPERATURE > 1 and residual.loss(module).item() == 0
    with torch.no_grad():
        linear_head(module).bias.copy_(torch.tensor([0.0, 0.0, 0.0, -20.0]))
        linear_head(module).weight[3].add_(1.0)
    assert residual.loss(module) > 0


def features(classes, seed, n=120):
    y = torch.tensor(classes).repeat(n)[:n]
    x = torch.randn(n, D, generator=generator(seed))
    x[torch.arange(n), y] += 4
    return TensorData(x, y, torch.zeros_like(y), torch.arange(n), origin="net-1")


def learned(module, **settings):
    torch.manual_seed(0)
    algorithm = BayesDual(**settings)

    def predict(x, tasks):
        return module(x)

    with torch.no_grad():
        for i in range(2):
            algorithm.end_experience(module, predict, features([2 * i, 2 * i + 1], i), i)
    return algorithm, predict


def test_a_linear_network_on_features_in_bytes_has_it_in_place_of_noise_and_prior():
    algorithm, predict = learned(network(), memory_bytes=3000)
    z = algorithm.memory.exemplars
    assert sum(algorithm.memory_bytes().values()) <= 3000 and 4 <= len(z) < 120
    assert float(z.weights.sum()) == pytest.approx(240, rel=1e-3)
    drawn = algorithm.replay()
    assert torch.cdist(drawn.x, z.x).min(1).values.max() < 0.1
    module = network()
    data = features([0, 1], 5)
    algorithm.begin_experience(data)
    with torch.no_grad():
        linear_head(module).weight.add_(0.1 * torch.randn(C, D, generator=generator(8)))
    _, parts = algorithm.loss(module, lambda x, t: module(x), data.x, data.y, data.tasks)
    spread = algorithm.memory.spread
    residual = Residual.of(network(), z, spread, 240)
    torch.testing.assert_close(parts["weight_space"], residual.loss(module).detach())
    for other in (learned(MLP(D, [8], C), memory_bytes=3000)[0], learned(network(), memory_size=20)[0]):
        drawn, kept = other.replay(), other.memory.exemplars
        assert torch.cdist(drawn.x, kept.x).min(1).values.max() > 0.1  # noise


@pytest.mark.parametrize(
    ("settings", "label", "weight"),
    [
        ({"weight_prior": None}, True, False),
        ({"weight_prior": None, "spread": 0}, False, False),
        ({"spread": 0}, False, True),
    ],
)
def test_each_term_can_be_left_out(settings, label, weight):
    algorithm, _ = learned(network(), memory_bytes=3000, **settings)
    assert (algorithm.holding.residual is not None) == label
    algorithm.begin_experience(data := features([0, 1], 5))
    _, parts = algorithm.loss(network(), lambda x, t: network()(x), data.x, data.y, data.tasks)
    assert ("weight_space" in parts) == weight


def test_a_checkpoint_and_a_file_hold_it(tmp_path):
    algorithm, _ = learned(network(), memory_bytes=3000)
    other, module = BayesDual(memory_bytes=3000), network(0.5)
    torch.save(algorithm.state_dict(), tmp_path / "state")
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    data = features([0, 1], 5)
    losses = []
    for one in (algorithm, copy.deepcopy(other)):
        one.begin_experience(data)
        losses.append(one.loss(module, lambda x, t: module(x), data.x, data.y, data.tasks)[0])
    assert torch.equal(*losses)
    algorithm.memory.save(tmp_path / "memory.safetensors")
    loaded = type(algorithm.memory).load(tmp_path / "memory.safetensors")
    assert loaded.bytes_by_part() == algorithm.memory.bytes_by_part()
    assert torch.equal(loaded.spread.through(torch.eye(D), 1), algorithm.memory.spread.through(torch.eye(D), 1))


def test_features_of_another_backbone_are_refused():
    algorithm, _ = learned(network(), memory_bytes=3000)
    other = BayesDual(memory_bytes=3000)
    other.load_state_dict(algorithm.state_dict())
    data = features([0, 1], 5)
    changed = TensorData(data.x, data.y, data.tasks, data.index, origin="net-2")
    for one in (algorithm, other):
        one.begin_experience(data)
        with pytest.raises(
            ValueError, match="holds features of net-1, and what comes is features of net-2: the backbone"
        ):
            one.begin_experience(changed)
