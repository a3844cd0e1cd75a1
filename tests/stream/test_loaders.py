"""Batches of an experience: each example once in an epoch, in an order that the seed gives, shared by all ranks."""

import pytest
import torch

from bayesdual.stream import DatasetData, Labelled, TensorData, TensorLoader


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


def test_in_the_order_of_the_data_no_example_goes_twice():
    shards = [labels(TensorLoader(data(5), 2, None, rank, 4)) for rank in range(4)]
    assert sorted(torch.cat(shards).tolist()) == [0, 1, 2, 3, 4]


class Items(list):
    targets = [4, 5]
    targets_task_labels = [0, 1]


def test_a_dataset_gives_its_inputs_with_the_labels_of_the_experience():
    items = Items([(torch.zeros(2), "left alone", 9), (torch.ones(2), "left alone", 9)])
    labelled = Labelled(items, DatasetData(items, "experience 0"))
    assert len(labelled) == 2
    x, y, task = labelled[1]
    assert torch.equal(x, torch.ones(2)) and (int(y), int(task)) == (5, 1)
