"""Memory vectors: what they preserve, and when exemplars are left as they are."""

import pytest
import torch
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.condensation import Sight, cell_means, holding, matched_features, memory_vectors, redrawn, sees_means
from bayesdual.models import CNN, MLP
from bayesdual.stream import TensorData


def test_the_rest_is_merged_into_the_nearest_by_hand():
    x = torch.tensor([[0.0], [10.0], [2.0], [9.0], [13.0]])
    w = torch.tensor([1.0, 1.0, 3.0, 1.0, 2.0])
    merged, weights, apart = cell_means(x, w, 2)
    assert merged.flatten().tolist() == [6 / 4, (10 + 9 + 26) / 4]
    assert weights.tolist() == [4.0, 4.0]
    lost = w @ x.square() - weights @ merged.square()  # of the second moment, in which means and what is apart add up
    assert float(apart.T @ apart) == pytest.approx(lost.item())


def test_how_far_many_are_apart_is_measured_on_some():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1600, 3, generator=generator) @ torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    merged, totals, apart = cell_means(x, torch.ones(1600), 10)
    assert len(apart) == 400
    lost = x.T @ x - (merged * totals[:, None]).T @ merged
    assert 0.02 < float((apart.T @ apart - lost).norm() / lost.norm()) < 0.2


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


def experience(classes, n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes).repeat_interleave(n)
    x = torch.randn(len(y), 8, generator=generator) + 3 * y[:, None]
    return TensorData(x, y, torch.zeros_like(y), torch.arange(len(y)))


def learned(condensation, experiences, network):
    algorithm = BayesDual(12, condensation=condensation, spread=0)
    for i, data in enumerate(experiences):
        algorithm.end_experience(network, lambda x, t: network(x), data, i)
    return algorithm.memory


def test_the_memory_holds_the_mean_of_all_examples_of_each_class_however_it_shrinks():
    torch.manual_seed(0)
    network, stream = MLP(8, (16,), 4).eval(), [experience([0, 1]), experience([2, 3], seed=1)]
    memory = learned(cell_means, stream, network)
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
    """As hosts predict: images are normalised on the way, and floating inputs are taken as they are."""
    return lambda x, t: network((x.float() / 255 - 0.3) / 0.2 if x.dtype == torch.uint8 else x)


def sight_of(network, seed=0):
    return Sight(network, normalised(network), torch.zeros(1, dtype=torch.int64), torch.Generator().manual_seed(seed))


def distance_to_the_mean(sight, x, merged, weights):
    with torch.no_grad():
        features, mine = sight(sight.given(x)), sight(sight.given(merged))
        return float((mine.mean(0) - weights @ features / weights.sum()).norm())


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_features_are_matched_and_inputs_stay_in_their_range(kind):
    torch.manual_seed(0)
    network, weights = CNN(8).eval(), torch.rand(60) + 0.5
    x = images() if kind == "uint8" else images().float() / 255
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    storages = [p.data_ptr() for p in network.parameters()]
    merged, totals, apart = memory_vectors(x, weights, 5, sight_of(network))
    assert apart is None  # noise is no image
    assert merged.shape == (5, 1, 8, 8) and merged.dtype == x.dtype
    assert torch.allclose(totals, weights.sum() / 5)
    assert float(merged.min()) >= float(x.min()) - 1e-5 or kind == "uint8"
    assert float(merged.max()) <= float(x.max()) + 1e-5 or kind == "uint8"
    sight = sight_of(network)
    assert distance_to_the_mean(sight, x, merged, weights) < 0.8 * distance_to_the_mean(sight, x, x[:5], weights)
    assert [p.data_ptr() for p in network.parameters()] == storages  # optimizers keep blocks of them
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_the_same_draws_give_the_same_vectors_and_the_default_generator_is_left_alone():
    torch.manual_seed(0)
    network, x, state = CNN(8).eval(), images(), torch.get_rng_state()
    first, second, other = (matched_features(x, torch.ones(60), 4, sight_of(network, seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_drawn_anew_are_held_for_a_while_only():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors = redrawn(network, torch.Generator())
    with pytest.raises(KeyboardInterrupt), holding(network, tensors):
        assert torch.equal(network[0].weight, tensors["0.weight"])
        assert not torch.equal(network[0].weight, before["0.weight"])
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


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
    assert torch.allclose(exemplars.logits, normalised(network)(exemplars.x, exemplars.t), atol=1e-5)
    assert exemplars.weights.tolist() == [15.0] * 8


def test_exemplars_stay_as_they_are_where_they_cannot_be_moved():
    tokens = torch.randint(9, (20, 5))
    embedding = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3)).eval()
    sight = Sight(embedding, lambda x, t: embedding(x), torch.zeros(1, dtype=torch.int64), torch.Generator())
    merged, weights, _ = memory_vectors(tokens, torch.ones(20), 4, sight)
    assert torch.equal(merged, tokens[:4]) and weights.tolist() == [5.0] * 4
    headless = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()).eval()
    x = images()
    merged, weights, _ = memory_vectors(x, torch.ones(60), 6, sight_of(headless))
    assert torch.equal(merged, x[:6]) and weights.tolist() == [10.0] * 6
