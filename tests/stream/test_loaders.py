"""Batches of an experience: each example once in an epoch, in an order that the seed gives, shared by all ranks."""

import pytest
import torch

from bayesdual.stream import DatasetData, DatasetLoader, TensorData, TensorLoader, shard, weights_in_mean


def data(n):
    y = torch.arange(n)
    return TensorData(10 * y[:, None], y, y % 2, y)


def labels(loader):
    return torch.cat([y for _, y, _ in loader])


def test_a_batch_holds_inputs_labels_and_tasks_of_the_same_examples():
    batches = list(TensorLoader(data(7), 3, seed=1))
    assert [len(y) for _, y, _ in batches] == [3, 3, 1] and len(TensorLoader(data(7), 3)) == 3
    for x, y, tasks in batches:
        assert torch.equal(x[:, 0], 10 * y) and torch.equal(tasks, y % 2)


def test_the_seed_gives_the_order_and_none_is_the_order_of_the_data():
    first, again, other = (labels(TensorLoader(data(50), 8, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first.sort().values, torch.arange(50))
    assert torch.equal(labels(TensorLoader(data(50), 8)), torch.arange(50))


@pytest.mark.parametrize("seed", [None, 3])
def test_ranks_share_out_the_order_of_one_process(seed):
    alone = labels(TensorLoader(data(12), 4, seed))
    shards = [labels(TensorLoader(data(12), 4, seed, rank, 3)) for rank in range(3)]
    assert torch.equal(torch.stack(shards, dim=1).flatten(), alone)


@pytest.mark.parametrize("n", [1, 5, 8])
def test_all_ranks_have_as_many_batches_of_shuffled_examples_however_few_there_are(n):
    loaders = [TensorLoader(data(n), 2, 0, rank, 4) for rank in range(4)]
    assert {len(loader) for loader in loaders} == {-(-n // 8)}
    shards = torch.stack([labels(loader) for loader in loaders])  # of the same size
    assert torch.equal(shards.unique(), torch.arange(n))


@pytest.mark.parametrize(("n", "ranks"), [(1, 4), (5, 2), (8, 4), (11, 3)])
def test_the_mean_over_ranks_of_their_weighted_sums_is_the_mean_over_the_batch(n, ranks):
    values = torch.rand(n, dtype=torch.float64)
    of_ranks = []
    for rank in range(ranks):
        mine, weights = values[shard(n, 0, rank, ranks)], weights_in_mean(n, rank, ranks)
        assert (weights is None) == (n % ranks == 0)
        of_ranks.append(mine.mean() if weights is None else mine @ weights)
    assert torch.allclose(torch.stack(of_ranks).mean(), values.mean())


def test_in_the_order_of_the_data_no_example_goes_twice():
    shards = [labels(TensorLoader(data(5), 2, None, rank, 4)) for rank in range(4)]
    assert sorted(torch.cat(shards).tolist()) == [0, 1, 2, 3, 4]


class Items(list):
    """A dataset of (input, label) that announces its targets."""

    def __init__(self, x, y, targets=None):
        super().__init__(zip(x, y, strict=True))
        self.targets = list(y) if targets is None else targets
        self.targets_task_labels = [label % 2 for label in range(len(self))]


def behind_a_dataset(n):
    return DatasetData(Items([torch.full((1,), 10.0 * i) for i in range(n)], list(range(n))), "experience 1")


def as_lists(loader):
    return [tuple(part.tolist() for part in batch) for batch in loader]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_is_batched_as_tensors_are_however_often_it_is_gone_through(seed, workers):
    loader = DatasetLoader(behind_a_dataset(7), 3, seed, workers=workers)
    expected = as_lists(TensorLoader(data(7), 3, seed))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert as_lists(loader) == as_lists(loader) == expected and len(loader) == 3
    assert torch.equal(torch.get_rng_state(), before)  # the order is not drawn from there


def test_ranks_share_out_a_dataset_and_none_evaluates_an_example_twice():
    shards = [labels(DatasetLoader(behind_a_dataset(5), 2, None, rank, 2)) for rank in (0, 1)]
    assert sorted(torch.cat(shards).tolist()) == [0, 1, 2, 3, 4]
    shards = [labels(DatasetLoader(behind_a_dataset(5), 2, 1, rank, 2)) for rank in (0, 1)]
    assert [len(s) for s in shards] == [3, 3] and len(torch.cat(shards).unique()) == 5


def test_an_input_that_is_not_finite_and_a_label_that_is_not_that_of_its_target_are_named():
    x = [torch.zeros(2) for _ in range(4)]
    x[2] = torch.tensor([0.0, -torch.inf])
    loader = DatasetLoader(DatasetData(Items(x, [0, 1, 0, 1]), "experience 2"), 3)
    with pytest.raises(ValueError, match=r"example 2 \(counted from 0\) of experience 2 has the input -inf"):
        list(loader)
    items = Items(x[:2] * 2, [0, 1, 1, 1], targets=[0, 1, 0, 1])  # the first of each target tells nothing
    with pytest.raises(ValueError, match="example 2 .* of experience 2 has another label than its targets say"):
        list(DatasetLoader(DatasetData(items, "experience 2"), 3))
