"""The algorithm against its equation: the loss of a step term by term, and what is kept when an experience ends."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.memory import random_selection
from bayesdual.posterior import curvature, last_layer_variance, leverage
from bayesdual.stream import TensorData


def experience(classes, n, seed=0):
    y = torch.tensor(classes).repeat_interleave(n)
    x = torch.randn(len(y), 5, generator=torch.Generator().manual_seed(seed)) + y[:, None]
    return TensorData(x, y, torch.zeros_like(y), torch.arange(len(y)))


def prior_of(value):
    """A prior of the weights that always costs the same."""
    return SimpleNamespace(loss=lambda module: torch.tensor(value), update=lambda *_: None, to=lambda device: None)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)).eval()


def learned(net, experiences, **settings):
    algorithm = BayesDual(memory_size=12, **settings)
    for i, data in enumerate(experiences):
        algorithm.begin_experience(data)
        algorithm.end_experience(net, lambda x, t: net(x), data, i)
    return algorithm


def test_the_loss_of_a_step_is_the_equation_term_by_term():
    """(N new + N' (a labels + b T^2 soft labels + prior)) / (N + N'), with N = 30 and N' = 90."""
    net = network()
    algorithm = learned(net, [experience([0, 1], 45)], label_share=0.3, temperature=2.0, weight_prior=prior_of(0.7))
    algorithm.begin_experience(experience([2, 3], 15, seed=1))
    z, new = algorithm.replay(), torch.tensor(1.5)
    logits = 3 * torch.randn(len(z), 4)
    loss, parts = algorithm.total_loss(net, new, logits, z)

    labels = F.cross_entropy(logits, z.y)
    soft = -((z.logits / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1).mean()
    want = (30 * new + 90 * (0.3 * labels + 0.7 * 2**2 * soft + 0.7)) / (30 + 90)
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    wanted = {"new": new, "labels": labels, "function_space": 4 * soft, "weight_space": torch.tensor(0.7)}
    assert parts.keys() == wanted.keys()
    assert all(parts[name].item() == pytest.approx(value.item(), rel=1e-5) for name, value in wanted.items())


def test_a_batch_and_what_is_replayed_beside_it_have_their_own_labels():
    net = network()
    data, batch = experience([2, 3], 15, seed=1), torch.arange(5, 25)
    algorithm, twin = (learned(net, [experience([0, 1], 45)], spread=0.0) for _ in range(2))
    twin.load_state_dict(algorithm.state_dict())
    for one in (algorithm, twin):
        one.begin_experience(data)
    loss, _ = algorithm.loss(net, lambda x, t: net(x), data.x[batch], data.y[batch], data.tasks[batch])
    z = twin.replay()
    want, _ = twin.total_loss(net, F.cross_entropy(net(data.x[batch]), data.y[batch]), net(z.x), z)
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)


def test_only_what_there_is_counts_as_past():
    net, new = network(), torch.tensor(1.5)
    first = BayesDual(memory_size=12)
    first.begin_experience(experience([0, 1], 45))
    assert first.replay() is None and first.total_loss(net, new)[0] == new
    forgetful = learned(net, [experience([0, 1], 45)], weight_prior=None)
    forgetful.begin_experience(experience([2, 3], 15))
    assert forgetful.total_loss(net, new)[0] == new  # nothing is replayed, and no prior holds the weights
    held = BayesDual(memory_size=0, weight_prior=prior_of(0.7))
    held.end_experience(net, lambda x, t: net(x), experience([0, 1], 45), 0)
    held.begin_experience(experience([2, 3], 15))
    assert held.replay() is None
    assert held.total_loss(net, new)[0].item() == pytest.approx((30 * 1.5 + 90 * 0.7) / 120)


def test_soft_labels_of_the_whole_memory_are_those_of_the_network_now():
    old, now = network(0), network(1)
    algorithm = learned(old, [experience([0, 1], 45)], spread=0.0)
    algorithm.end_experience(now, lambda x, t: now(x), experience([2, 3], 15, seed=1), 1)
    z = algorithm.memory.exemplars
    assert set(z.experience.tolist()) == {0, 1}
    assert torch.allclose(z.logits, now(z.x), atol=1e-5)


@pytest.mark.parametrize("has_posterior", [True, False])
def test_scores_are_leverages_under_the_posterior_and_curvatures_without_one(has_posterior):
    net, data = network(), experience([0, 1], 20)
    net.requires_grad_(has_posterior)  # without parameters that are learned there is no posterior
    algorithm = BayesDual(memory_size=12, condensation=None, selection=random_selection)
    algorithm.end_experience(net, lambda x, t: net(x), data, 0)
    z = algorithm.memory.exemplars
    p = net(z.x).softmax(1)
    if has_posterior:
        variance = algorithm.posterior.variance
        want = leverage(p, last_layer_variance(net[:2](z.x), variance["2.weight"], variance["2.bias"]))
    else:
        assert algorithm.posterior is None
        want = curvature(p).sum(1)
    assert torch.allclose(z.scores, want, rtol=1e-5)


def test_what_examples_were_not_looked_at_the_memory_stands_for_too():
    """Of many candidates a part is looked at, and its spread and weights are those of all."""
    net, data = network(), experience([0, 1], 400)
    whole, part = (learned(net, [data], candidates=n, spread=1.0) for n in (400, 100))
    assert float(part.memory.exemplars.weights.sum()) == pytest.approx(800)
    for algorithm in (whole, part):
        algorithm.replay_batch_size = 8000
    variances = [algorithm.replay().x.var(0) for algorithm in (whole, part)]
    assert torch.allclose(variances[1], variances[0], rtol=0.25)


def test_a_state_has_all_that_the_next_experience_depends_on():
    net, data = network(), experience([0, 1], 45)
    algorithm, other = learned(net, [data]), BayesDual(memory_size=12)
    other.load_state_dict(algorithm.state_dict())
    more = replace(experience([2, 3], 15, seed=1), index=torch.arange(30) + 90)
    for one in (algorithm, other):
        assert one.replay() is not None
        one.end_experience(net, lambda x, t: net(x), more, 1)
    assert torch.equal(algorithm.replay().x, other.replay().x)
    for name, tensor in algorithm.memory.exemplars.tensors().items():
        assert torch.equal(tensor, getattr(other.memory.exemplars, name)), name


def test_equal_classes_make_the_loss_one_over_classes_of_mean_losses():
    """Frequent and rare classes, one of them in both experiences; all of the past in memory, drawn very often."""
    parts = [experience([0] * 3 + [1], 10), experience([1, 2], 5, seed=1)]
    net = network()
    algorithm = BayesDual(40, 40_000, 1.0, None, None, condensation=None, spread=0, equal="classes")
    algorithm.begin_experience(parts[0])
    algorithm.end_experience(net, lambda x, t: net(x), parts[0], 0)
    algorithm.begin_experience(parts[1])
    loss, _ = algorithm.loss(net, lambda x, t: net(x), parts[1].x, parts[1].y, parts[1].tasks)
    x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    losses = F.cross_entropy(net(x), y, reduction="none")
    assert loss.item() == pytest.approx(sum(losses[y == c].mean().item() for c in (0, 1, 2)) / 3, rel=1e-3)
    assert abs(loss.item() / losses.mean().item() - 1) > 0.01, "which is not the mean over examples"
    with torch.no_grad():
        assert torch.equal(algorithm.criterion(net(x), y), losses.mean()), "evaluations are plain"


def test_equal_classes_of_numbers_are_refused():
    with pytest.raises(ValueError, match="equal is classes, and the targets of the gaussian likelihood are numbers"):
        BayesDual(equal="classes", likelihood="gaussian")
    with pytest.raises(ValueError, match="equal is 'tasks': give examples or classes"):
        BayesDual(equal="tasks")
