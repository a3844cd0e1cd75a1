"""What data have to be: one class for each example, finite tensors; anything else is refused in a sentence."""

import random

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from torch.utils.data import IterableDataset

from bayesdual.stream import DatasetData, class_numbers, classes_of, experience_data, refuse_not_finite
from tests.streams import Items, experience


@pytest.mark.parametrize(
    "labels",
    [[3, 0, 1], torch.tensor([3, 0, 1], dtype=torch.int32), np.array([3, 0, 1]), [torch.tensor(v) for v in (3, 0, 1)]],
)
def test_whole_numbers_are_classes_however_they_come(labels):
    numbers = class_numbers(labels, "it")
    assert numbers.tolist() == [3, 0, 1] and numbers.dtype == torch.int64
    assert class_numbers([], "it").shape == (0,)
    assert class_numbers([True, False], "it").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            [3.72, 1.0],
            r"the labels of it are floats, such as 3\.72: .* for numbers, give algorithm.likelihood gaussian",
        ),
        (torch.tensor([3.0, 1.0]), "are floats, such as 3: classes are whole numbers"),
        (["cat", "dog"], "are text, such as 'cat': number the classes"),
        (np.array(["cat", "dog"]), "are text, such as 'cat': number the classes"),
        (torch.eye(3), r"have shape \(N, 3\): .* targets.argmax\(1\) if they are one-hot"),
        ([[1, 0, 1], [0, 1, 1]], r"have shape \(N, 3\): .* \(multi-label\) are not supported"),
        ([torch.tensor([1]), torch.tensor([0])], r"have shape \(N, 1\): .* targets.squeeze\(1\)"),
        ([[1], [0, 2]], "are not one whole number for each example"),
    ],
)
def test_other_labels_are_refused(labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        class_numbers(labels, "it")


def odd(label):
    return int(label) % 2


def dataset(y, **groups):
    return as_classification_dataset(Items(torch.randn(len(y), 2), y), transform_groups=TransformGroups(groups))


def test_labels_are_those_that_the_items_have():
    assert DatasetData(dataset([4, 5, 7], train=(None, odd), eval=(None, odd)), "it").y.tolist() == [0, 1, 1]
    own = Items(torch.randn(3, 2), [4, 5, 7], target_transform=odd)
    assert DatasetData(as_classification_dataset(own), "it").y.tolist() == [0, 1, 1]
    named = Items(torch.randn(3, 2), ["b", "a", "b"], target_transform=["a", "b"].index)
    assert DatasetData(named, "it").y.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="labels of it are others when it is learned than when it is evaluated"):
        DatasetData(dataset([4, 5, 7], train=(None, odd), eval=None), "it")


def test_an_experience_has_the_classes_of_its_items_whatever_its_targets_are():
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline

    made = benchmark_from_datasets(train=[dataset([4, 5, 7], train=(None, odd), eval=(None, odd))])
    first = with_classes_timeline(made).train_stream[0]
    assert sorted(first.classes_in_this_experience) == [4, 5, 7] and classes_of(first) == [0, 1]


def test_looking_at_labels_draws_nothing():
    def augmented(x):
        return x + torch.randn(2) + np.random.randn() + random.random()

    made = dataset([4, 5, 7], train=(augmented, None), eval=(augmented, None))
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    DatasetData(made, "it")
    drawn = float(torch.randn(())), np.random.randn(), random.random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    assert drawn == (float(torch.randn(())), np.random.randn(), random.random())


def test_tensors_with_labels_that_are_no_classes_are_refused():
    made = experience([0, 1], 3, 0)
    whole = made.tensors()
    made.tensors = lambda: type(whole)(whole.x, whole.y + 0.5, whole.tasks, whole.index)
    with pytest.raises(ValueError, match="the labels of experience 1 of the benchmark are floats, such as 0.5"):
        experience_data(made)


class Picture:
    """As PIL's: no tensor, nor anything that one can be made of."""


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([Picture(), Picture()], "the inputs of it are Picture, which is no tensor: give the dataset a transform"),
        ([torch.zeros(3), torch.zeros(4)], r"are of different shapes, such as \(3,\) and \(4,\)"),
    ],
)
def test_inputs_that_make_no_batch_are_refused(inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        DatasetData(Items(inputs, [0, 1]), "it").inputs(torch.arange(2))


def test_an_input_that_is_not_finite_is_named_by_its_row():
    x = torch.zeros(3, 1, 2)
    x[1, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"example 7 \(counted from 0\) of it has the input nan"):
        refuse_not_finite(x, torch.tensor([5, 7, 9]), "it")
    refuse_not_finite(x.to(torch.int64), torch.arange(3), "it")


class OneAfterTheOther(IterableDataset):
    targets = [0, 1]

    def __len__(self):
        return 2

    def __iter__(self):
        yield from zip(torch.randn(2, 3), self.targets, strict=True)


def test_a_dataset_without_items_by_number_is_refused():
    with pytest.raises(ValueError, match="the dataset of it has no items by number.*: give it __len__ and __getitem__"):
        DatasetData(as_classification_dataset(OneAfterTheOther()), "it")
