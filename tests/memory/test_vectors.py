"""Memory vectors: what they preserve, and when exemplars are left as they are."""

import warnings

import pytest
import torch
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.memory import cell_means, dual_coverage, memory_vectors
from bayesdual.models import CNN, MLP, sees_means
from bayesdual.stream import TensorData


def test_the_rest_is_merged_into_the_nearest_by_hand():
    x = torch.tensor([[0.0], [10.0], [2.0], [9.0], [13.0]])
    w = torch.tensor([1.0, 1.0, 3.0, 1.0, 2.0])
    merged, weights, deviations = cell_means(x, w, 2)
    assert merged.flatten().tolist() == [6 / 4, (10 + 9 + 26) / 4]
    assert weights.tolist() == [4.0, 4.0]
    lost = w @ x.square() - weights @ merged.square()  # of the second moment, in which means and deviations add up
    assert float(deviations.T @ deviations) == pytest.approx(lost.item())


def test_of_many_vectors_the_nearest_of_some_takes_the_rest_in():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4000, 1, generator=generator)
    merged, weights, _ = cell_means(x, torch.ones(4000), 1200)
    assert float(weights.sum()) == 4000 and float(weights @ merged[:, 0]) == pytest.approx(float(x.sum()), rel=1e-5)
    assert float((merged - x[:1200]).abs().max()) < 0.02  # some 3 of 400 a cell


def test_the_deviations_of_many_are_measured_on_some():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1600, 3, generator=generator) @ torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    merged, totals, deviations = cell_means(x, torch.ones(1600), 10)
    assert len(deviations) == 267
    lost = x.T @ x - (merged * totals[:, None]).T @ merged
    assert 0.02 < float((deviations.T @ deviations - lost).norm() / lost.norm()) < 0.2


def test_a_linear_layer_gives_the_same_mean_whatever_its_weights():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(50, 3, 4, generator=generator), torch.rand(50, generator=generator) + 0.1
    merged, totals, _ = cell_means(x, w, 7)
    assert merged.shape == (7, 3, 4) and torch.allclose(totals.sum(), w.sum())
    for seed in range(3):
        weight = torch.randn(12, 5, generator=torch.Generator().manual_seed(seed))
        mine, all_of_them = totals @ (merged.flatten(1) @ weight), w @ (x.flatten(1) @ weight)
        assert torch.allclose(mine, all_of_them, atol=1e-4)


def test_images_stay_images_and_tokens_are_refused():
    merged, *_ = cell_means(torch.tensor([[0], [255], [3]], dtype=torch.uint8), torch.ones(3), 2)
    assert merged.dtype == torch.uint8 and merged.flatten().tolist() == [2, 255]  # 1.5 rounds to even
    with pytest.raises(ValueError, match=r"torch.int64 have no mean: give algorithm.condensation null"):
        cell_means(torch.zeros(3, 2, dtype=torch.int64), torch.ones(3), 2)


def test_only_networks_that_are_linear_first_see_means():
    assert sees_means(MLP(8, (4,), 3)) and not sees_means(CNN())
    assert not sees_means(nn.Flatten())
    assert not sees_means(nn.ModuleDict({"head": nn.Linear(8, 3), "first": nn.Conv2d(1, 8, 3)}))


def experience(classes, n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes).repeat_interleave(n)
    x = torch.randn(len(y), 8, generator=generator) + 3 * y[:, None]
    return TensorData(x, y, torch.zeros_like(y), torch.arange(len(y)))


def learned(condensation, experiences, network, **settings):
    algorithm = BayesDual(12, condensation=condensation, spread=0, **settings)
    for i, data in enumerate(experiences):
        algorithm.end_experience(network, lambda x, t: network(x), data, i)
    return algorithm.memory


def rising(candidates, n, generator):
    """A selection that weights what it chooses."""
    return torch.arange(n), torch.arange(1.0, n + 1)


@pytest.mark.parametrize("selection", [dual_coverage, rising])
def test_the_memory_holds_the_mean_of_all_examples_of_each_class_however_it_shrinks(selection):
    torch.manual_seed(0)
    network, stream = MLP(8, (16,), 4).eval(), [experience([0, 1]), experience([2, 3], seed=1)]
    memory = learned(memory_vectors, stream, network, selection=selection)
    assert len(memory) == 12
    for data in stream:
        for c in data.y.unique().tolist():
            mine = memory.exemplars[memory.exemplars.y == c]
            assert float(mine.weights.sum()) == pytest.approx(40)
            mean = (mine.x * mine.weights[:, None]).sum(0) / mine.weights.sum()
            assert torch.allclose(mean, data.x[data.y == c].mean(0), atol=1e-5)
    exemplars = memory.exemplars
    assert torch.allclose(exemplars.logits, network(exemplars.x), atol=1e-5)  # of what they are now


def test_without_condensation_exemplars_are_examples():
    torch.manual_seed(0)
    data = experience([0, 1])
    exemplars = learned(None, [data, experience([2, 3], seed=1)], MLP(8, (16,), 4).eval()).exemplars
    first = exemplars[exemplars.experience == 0]
    assert torch.equal(first.x, data.x[first.index])


# -- networks that do not see means


def images(n=60, seed=0):
    """Blurred noise in uint8."""
    noise = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.avg_pool2d(noise, 3, 1, 1) * 255).to(torch.uint8)


def normalised(network):
    """As hosts predict: images are normalised on the way."""
    return lambda x, t: network((x.float() / 255 - 0.3) / 0.2)


def test_a_memory_of_a_convolutional_network_keeps_its_shares_and_its_soft_labels():
    torch.manual_seed(0)
    network = CNN(8, n_classes=4).eval()
    algorithm = BayesDual(8)
    for i in range(2):
        y = torch.tensor([2 * i, 2 * i + 1]).repeat_interleave(30)
        data = TensorData(images(60, seed=i), y, torch.zeros_like(y), torch.arange(60))
        algorithm.end_experience(network, normalised(network), data, i)
    exemplars = algorithm.memory.exemplars
    assert exemplars.x.dtype == torch.uint8 and exemplars.y.bincount().tolist() == [2, 2, 2, 2]
    assert torch.allclose(exemplars.logits, normalised(network)(exemplars.x, exemplars.tasks), atol=1e-5)
    assert exemplars.weights.tolist() == [15.0] * 8


def with_embedding():
    return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))


@pytest.mark.parametrize("kind", ["tokens", "tokens into a linear layer", "convolution"])
def test_exemplars_stay_as_they_are_where_means_are_not_seen(kind):
    """And the weights that the selection gave them stay, too; nothing but what is kept is loaded once more."""
    x = images(60) if kind == "convolution" else torch.randint(9, (60, 5))
    network = {"tokens": with_embedding(), "convolution": CNN(8)}.get(kind, nn.Linear(5, 3)).eval()
    predict = {
        "tokens": lambda x, t: network(x),
        "tokens into a linear layer": lambda x, t: network(x.float()),
        "convolution": normalised(network),
    }[kind]
    y = torch.zeros(60, dtype=torch.int64)
    data, taken = TensorData(x, y, y, torch.arange(60)), []
    algorithm = BayesDual(
        4,
        selection=lambda candidates, n, generator: (torch.arange(n), torch.arange(1.0, n + 1)),
        weight_prior=None,  # which would look at the data, too
    )
    inputs = TensorData.inputs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorData, "inputs", lambda self, rows: taken.append(len(rows)) or inputs(self, rows))
        algorithm.end_experience(network, predict, data, 0)
    assert memory_vectors(network, x.dtype) is None and not algorithm.memory.spread
    kept = algorithm.memory.exemplars
    assert torch.equal(kept.x, x[:4]) and kept.weights.tolist() == [6, 12, 18, 24]
    assert taken == [60, 60, 4, 16]  # to measure the posterior, to score, to keep, to show the extremes


def test_that_tokens_are_kept_as_they_are_is_said_before_anything_is_learned():
    y = torch.zeros(6, dtype=torch.int64)
    tokens, floats = TensorData(torch.randint(9, (6, 5)), y, y, y), TensorData(torch.rand(6, 5), y, y, y)
    with pytest.warns(
        UserWarning, match="type torch.int64 have no mean: .* kept as they are; condensation null says so"
    ):
        BayesDual(4).check_budget(tokens, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BayesDual(4).check_budget(floats, 2)
        BayesDual(4, condensation=None).check_budget(tokens, 2)
