"""The spread around memory vectors: how it is measured, what noise it makes, and the soft labels that follow."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.memory import IMPOSSIBLE, Exemplars, Spread, mean_predictions
from bayesdual.models import MLP
from bayesdual.stream import TensorData

COVARIANCE = torch.tensor([[4.0, 3.0], [3.0, 9.0]])


def spread_of(covariance, seed=9):
    """Of one example: what is asked for of more has a smaller covariance."""
    spread = Spread()
    spread.add(deviations_with(covariance), generator(seed))
    return spread


def deviations_with(covariance):
    """Differences with this sum of squares."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.sqrt()[:, None] * vectors.T


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_noise_has_the_covariance_of_what_the_vectors_stand_for():
    noisy = spread_of(COVARIANCE).around(torch.full((40_000, 2), 7.0), 1, 0.5, generator())
    assert torch.allclose(noisy.mean(0), torch.tensor([7.0, 7.0]), atol=0.05)
    assert torch.allclose(noisy.T.cov(), 0.25 * COVARIANCE, atol=0.3)


def test_variances_add_up_and_are_shared_by_the_examples():
    spread = spread_of(COVARIANCE)
    source = generator(10)
    for _ in range(3):
        spread.add(deviations_with(COVARIANCE), source)
    noisy = spread.around(torch.zeros(40_000, 2), 4, 1.0, generator())
    assert torch.allclose(noisy.T.cov(), COVARIANCE, atol=1.2)


def test_noise_depends_on_draws_and_generator_only_and_images_stay_images():
    x = torch.tensor([[0, 255]], dtype=torch.uint8).expand(500, 2)
    one, again = spread_of(400 * COVARIANCE), Spread()
    first = one.around(x, 1, 1.0, generator())
    assert first.dtype == torch.uint8 and {0, 255} <= set(first.flatten().tolist())
    again.load_state_dict(one.state_dict())
    assert torch.equal(again.around(x, 1, 1.0, generator()), first)
    assert not torch.equal(one.around(x, 1, 1.0, generator(1)), first)


@pytest.mark.parametrize("covariance", [torch.zeros(2, 2), torch.diag(torch.tensor([4.0, 0.0]))])
def test_inputs_that_never_vary_get_no_noise(covariance):
    noisy = spread_of(covariance).around(torch.zeros(1000, 2), 1, 1.0, generator())
    assert torch.allclose(noisy.std(0), covariance.diagonal().sqrt(), atol=0.2)


def test_inputs_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="infinite or not numbers"):
        Spread().add(torch.tensor([[1.0, math.inf]]), generator())


def test_the_state_of_an_older_version_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="older version of bayesdual"):
        Spread().load_state_dict({"scatter": torch.eye(2)})


def exemplars(x):
    n = len(x)
    zeros = torch.zeros(n, dtype=torch.int64)
    return Exemplars(x, zeros, zeros, torch.zeros(n, 3), torch.ones(n), torch.zeros(n), zeros, zeros)


def test_soft_labels_are_mean_predictions_and_less_sure_than_those_of_the_means():
    torch.manual_seed(0)
    network, z, spread = nn.Linear(2, 3), exemplars(3 * torch.randn(900, 2)), spread_of(4 * COVARIANCE)
    with torch.no_grad():
        once, again = (
            mean_predictions(lambda x, t: network(x), z, spread, 1, 2.0, generator(s)).div(2).softmax(1)
            for s in (0, 100)
        )
        p, plain = (once + again) / 2, (network(z.x) / 2).softmax(1)
        drawn = torch.stack(
            [network(spread.around(z.x, 1, 1.0, generator(s))).div(2).softmax(1) for s in range(1, 100)]
        )
    assert float((p - drawn.mean(0)).abs().max()) < 0.35 and float((p - drawn.mean(0)).mean().abs()) < 0.01
    assert float((once - drawn.mean(0)).square().mean().sqrt()) < 0.15
    entropy = [float(-(q * q.log()).sum(1).mean()) for q in (p, plain)]
    assert entropy[0] > entropy[1] + 0.05


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_without_noise_are_the_logits_up_to_a_constant(temperature):
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 4.0, -3.0]])
    spread = spread_of(torch.zeros(2, 2))
    labels = mean_predictions(lambda x, t: logits, exemplars(torch.zeros(2, 2)), spread, 1, temperature, generator())
    assert torch.allclose(labels - labels[:, :1], logits - logits[:, :1], atol=1e-5)


def test_classes_that_cannot_be_stay_impossible():
    def predict(x, t):
        return torch.cat([x, torch.full((len(x), 1), IMPOSSIBLE)], 1)

    labels = mean_predictions(predict, exemplars(torch.randn(4, 2)), spread_of(COVARIANCE), 1, 3.0, generator())
    assert labels.isfinite().all() and (labels.softmax(1)[:, 2] == 0).all()


def experience(classes, seed):
    y = torch.tensor(classes).repeat_interleave(40)
    x = torch.randn(len(y), 8, generator=generator(seed)) + 3 * y[:, None]
    return TensorData(x, y, torch.zeros_like(y), torch.arange(len(y)))


def learned(**settings):
    torch.manual_seed(0)
    network = MLP(8, (16,), 4).eval()
    algorithm = BayesDual(12, **settings)
    for i, data in enumerate([experience([0, 1], 0), experience([2, 3], 1)]):
        algorithm.end_experience(network, lambda x, t: network(x), data, i)
    return algorithm, network


def test_what_is_replayed_has_the_second_moments_of_all_examples():
    algorithm, _ = learned(spread=1.0)
    x = torch.cat([experience([0, 1], 0).x, experience([2, 3], 1).x])
    algorithm.replay_batch_size = 24_000
    replayed, plain = algorithm.replay(), algorithm.memory.exemplars
    second = x.T @ x / len(x)
    mine, theirs = ((z.x * z.weights[:, None]).T @ z.x / z.weights.sum() for z in (replayed, plain))
    assert float((mine - second).norm()) < 0.05 * float(second.norm())
    own, lost = (float((m - second).diagonal().mean()) for m in (mine, theirs))
    assert lost < -0.3 and abs(own) < 0.1


def test_a_memory_that_held_all_examples_has_a_spread_once_they_are_merged():
    algorithm = BayesDual(100)
    torch.manual_seed(0)
    network = MLP(8, (16,), 4).eval()
    for i, classes in enumerate([[0, 1], [2, 3]]):
        algorithm.end_experience(network, lambda x, t: network(x), experience(classes, i), i)
        assert bool(algorithm.memory.spread) == (i == 1)
    assert algorithm.replay().x.isfinite().all()


def test_without_spread_vectors_and_soft_labels_are_those_of_the_means():
    algorithm, network = learned(spread=0)
    z = algorithm.memory.exemplars
    assert torch.allclose(z.logits, network(z.x), atol=1e-5)
    rows = {tuple(row) for row in z.x.tolist()}
    assert all(tuple(row) in rows for row in algorithm.replay().x.tolist())
    with pytest.raises(ValueError, match="spread is -1"):
        BayesDual(spread=-1)


def test_a_checkpoint_goes_on_with_the_same_draws_wherever_a_version_kept_them():
    algorithm, _ = learned()
    state = algorithm.state_dict()
    memory = {name: part for name, part in state["memory"].items() if name != "spread"}
    beside = {**state, "memory": memory, "spread": state["memory"]["spread"]}
    expected = algorithm.replay().x
    for saved in (state, beside):
        other = BayesDual(12)
        other.load_state_dict(saved)
        assert torch.equal(other.replay().x, expected)
    oldest = BayesDual(12)
    oldest.load_state_dict({**state, "memory": memory})  # of before there was a spread
    rows = {tuple(row) for row in oldest.memory.exemplars.x.tolist()}
    assert all(tuple(row) in rows for row in oldest.replay().x.tolist())


def test_every_process_replays_its_part_of_the_same_draw():
    make = partial(learned, spread=0.6)
    alone, _ = make()
    alone.replay_batch_size = 128
    parts = []
    for rank in range(2):
        algorithm, _ = make()
        algorithm._rank, algorithm._ranks, algorithm._batches = rank, 2, 2
        parts.append(algorithm.replay().x)
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), alone.replay().x)


@pytest.mark.parametrize(("n", "draws"), [(200, 8), (2000, 4), (9000, 1)])
def test_soft_labels_of_many_vectors_are_means_of_fewer_predictions(n, draws):
    seen = []

    def predict(x, t):
        seen.append(len(x))
        return x @ torch.ones(2, 3)

    mean_predictions(predict, exemplars(torch.randn(n, 2)), spread_of(COVARIANCE), 1, 2.0, generator())
    assert sum(seen) == n * draws
