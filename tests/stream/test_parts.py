"""Inputs of several parts: as one tensor and back to the bit, or refused in a sentence."""

import random
from collections import UserDict
from dataclasses import asdict

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.benchmarks.utils.transform_groups import TransformGroups

from bayesdual.stream import DatasetData, DatasetLoader, Inputs, Parts
from tests.streams import Items


def texts(n, seed=0):
    """Tokens of a vocabulary of 50, their mask, and two numbers, of n examples."""
    draw = torch.Generator().manual_seed(seed)
    return [
        {
            "ids": torch.randint(50, (6,), generator=draw),
            "mask": torch.arange(6) < 3 + i % 4,
            "numbers": torch.randn(2, 1, generator=draw),
            "one": np.float64(-0.1 * i),
        }
        for i in range(n)
    ]


def same(a, b):
    return a.dtype == b.dtype and torch.equal(a, b)


def test_all_parts_come_back_to_the_bit():
    items = texts(5)
    parts = Parts.of(items[0], "it")
    x = parts.stacked(items, "it")
    assert x.shape == (5, 6 + 6 + 2 + 1) and x.dtype == torch.int64
    back = parts.unpacked(x)
    for key in ("ids", "mask", "numbers", "one"):
        assert same(back[key], torch.stack([torch.as_tensor(item[key]) for item in items])), key
    assert same(parts.taken(back), x) and same(parts.taken(UserDict(back)), x)
    assert Parts.from_state_dict(asdict(parts)) == parts


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.bool])
def test_tuples_of_any_type_come_back_as_tuples(dtype):
    items = [(torch.randn(2, 3).to(dtype), torch.tensor([i])) for i in range(4)]
    parts = Parts.of(items[0], "it")
    first, second = parts.unpacked(parts.stacked(items, "it"))
    assert same(first, torch.stack([a for a, _ in items])) and second.tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    "x", [torch.randn(3), [1.0, 2.0], (0.5, 2), np.ones(2), (torch.tensor(1.0), torch.tensor(2.0))]
)
def test_one_tensor_has_no_parts(x):
    assert Parts.of(x, "it") is None


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"ids": torch.arange(5), "mask": torch.ones(6)},
            "the inputs of it are not alike: one is a dict of ids: int64",
        ),
        ({"ids": torch.arange(6)}, "another a dict of ids: int64"),
        ({"ids": torch.arange(6), "mask": torch.ones(6).long()}, "not alike"),
        (torch.arange(6), "another Tensor; give a transform that makes all of them alike"),
        ({"ids": torch.arange(6), "mask": "a text"}, "the part 'mask' of the inputs of it is str, which is no tensor"),
    ],
)
def test_inputs_that_are_not_alike_are_refused(other, sentence):
    one = {"ids": torch.arange(6), "mask": torch.ones(6)}
    with pytest.raises(ValueError, match=sentence):
        Parts.of(one, "it").stacked([one, other], "it")


def test_a_loader_gives_what_the_items_have_and_refuses_a_part_that_is_not_finite():
    items = texts(20)
    data = DatasetData(Items(items, [i % 2 for i in range(20)]), "it")
    rows = torch.tensor([7, 2])
    assert same(
        data.parts.unpacked(data.inputs(rows))["numbers"], torch.stack([items[7]["numbers"], items[2]["numbers"]])
    )
    x, _, _ = next(iter(DatasetLoader(data, 8, seed=1)))
    assert Inputs.of(data).normalised(x)["ids"].shape == (8, 6)
    items[9]["numbers"][1] = torch.inf
    with pytest.raises(ValueError, match=r"example 9 \(counted from 0\) of it has the input inf"):
        list(DatasetLoader(data, 8, seed=1))


def test_what_was_learned_is_told_from_other_parts():
    data = DatasetData(Items(texts(3), [0, 1, 0]), "it")
    learned = Inputs.of(data)
    assert Inputs.from_state_dict(learned.state_dict()) == learned
    fewer = [{k: v for k, v in item.items() if k != "mask"} for item in texts(3)]
    with pytest.raises(ValueError, match="data.benchmark has inputs that are a dict of ids.* has been learned"):
        learned.refuse_others(Inputs.of(DatasetData(Items(fewer, [0, 1, 0]), "it")))
    with pytest.raises(ValueError, match="the inputs are a dict of ids: .*: give a dict of ids"):
        learned.taken({"ids": torch.zeros(2, 6).long()})
    with pytest.raises(ValueError, match="the inputs are Tensor: give a dict"):
        learned.taken(torch.zeros(2, 15))


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (
            lambda x: x[:3],
            r"float32 of shape \(4,\) when they are evaluated and float32 of shape \(3,\) when they are l",
        ),
        (lambda x: x.double(), "float32 of shape .* and float64 of shape"),
        (lambda x: {"x": x}, r"and a dict of x: float32 \(4,\) when they are learned"),
    ],
)
def test_views_of_several_sizes_are_refused(train, sentence):
    groups = TransformGroups({"train": (train, None), "eval": (None, None)})
    with pytest.raises(ValueError, match=sentence):
        DatasetData(as_classification_dataset(Items(torch.randn(3, 4), [0, 1, 2]), transform_groups=groups), "it")


def test_looking_at_a_view_draws_nothing():
    items = Items(torch.randn(3, 4), [0, 1, 2])
    random.seed(3)
    torch.manual_seed(3)
    expected = random.random(), float(torch.rand(()))
    random.seed(3)
    torch.manual_seed(3)
    draw = TransformGroups({"train": (lambda x: x + random.random() + torch.rand(()), None), "eval": (None, None)})
    DatasetData(as_classification_dataset(items, transform_groups=draw), "it")
    assert (random.random(), float(torch.rand(()))) == expected
