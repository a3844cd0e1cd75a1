"""Streams of one's own arrays: who is in which experience, on which side, under which number, at which scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bayesdual.scenarios import from_arrays

N = 60
X = np.random.default_rng(0).normal(5.0, 3.0, (N, 4))
Y = np.repeat(["cat", "ant", "bee"], N // 3)


def rows(stream) -> list[list[int]]:
    return [experience.tensors().index.tolist() for experience in stream]


def together(benchmark, *streams: str) -> list[int]:
    return sorted(i for s in streams for part in rows(getattr(benchmark, f"{s}_stream")) for i in part)


def test_classes_are_numbered_by_the_alphabet_and_dealt_out_in_their_order():
    benchmark = from_arrays(X, Y, n_experiences=2, validation=0.25)
    assert benchmark.class_names == ("ant", "bee", "cat")
    assert [e.classes_in_this_experience for e in benchmark.train_stream] == [[0, 1], [2]]
    assert together(benchmark, "train", "valid", "test") == list(range(N)), "each example is in one place"
    for experience in (*benchmark.train_stream, *benchmark.valid_stream, *benchmark.test_stream):
        data = experience.tensors()
        assert [benchmark.class_names[c] for c in data.y] == Y[data.index.numpy()].tolist()
    assert [len(e.dataset) for e in benchmark.test_stream] == [8, 4], "a fifth of each class"
    assert [len(e.dataset) for e in benchmark.valid_stream] == [8, 4], "a quarter of the rest"
    assert from_arrays(X, Y, class_order=["cat", "bee", "ant"], n_experiences=3).classes_order == [2, 1, 0]
    shuffled = [from_arrays(X, Y, n_experiences=3, shuffle_classes=True, seed=s).classes_order for s in range(9)]
    assert all(sorted(order) == [0, 1, 2] for order in shuffled) and len(set(map(tuple, shuffled))) > 1


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.repeat([100, 9, 20], 20), ("9", "20", "100")),
        (np.repeat(["100", "9", "20"], 20), ("9", "20", "100")),
        (np.repeat([3.0, 1.0, -2.0], 20), ("-2", "1", "3")),
        (np.repeat([True, False], 30), ("False", "True")),
        (torch.arange(3).repeat_interleave(20) * 7, ("0", "7", "14")),
        (np.repeat(np.array(["x1", 5], dtype=object), 30), ("5", "x1")),
    ],
)
def test_labels_of_any_kind_become_consecutive_and_keep_their_names(labels, names):
    benchmark = from_arrays(X, labels, n_experiences=2)
    assert benchmark.class_names == names
    data = benchmark.test_stream[1].tensors()
    given = np.asarray(labels)[data.index.numpy()].tolist()
    assert [str(int(v) if isinstance(v, float) else v) for v in given] == [names[c] for c in data.y]


def test_domains_come_as_they_first_appear_and_numbers_ascending():
    domain = np.tile(["new", "old", "mid"], N // 3)
    benchmark = from_arrays(X, Y, by="domain", domain=domain, test=0.25)
    assert [set(domain[part]) for part in rows(benchmark.train_stream)] == [{"new"}, {"old"}, {"mid"}]
    assert [set(domain[part]) for part in rows(benchmark.test_stream)] == [{"new"}, {"old"}, {"mid"}]
    assert benchmark.n_classes_per_exp == [3, 3, 3]
    numbers = from_arrays(X, Y, by="domain", domain=np.tile([10, 9, 2], N // 3), task_labels=True)
    assert [part[0] % 3 for part in rows(numbers.train_stream)] == [2, 1, 0]
    assert [e.task_labels for e in numbers.test_stream] == [[0], [1], [2]]


def test_by_time_the_latest_of_each_part_are_for_testing():
    y = np.tile([0, 1], N // 2)
    in_order = from_arrays(X, y, by="time", n_experiences=3, validation=0.25)
    assert rows(in_order.test_stream) == [[*range(16, 20)], [*range(36, 40)], [*range(56, 60)]]
    assert rows(in_order.valid_stream)[0] == [*range(12, 16)] and rows(in_order.train_stream)[0] == [*range(12)]
    backwards = from_arrays(X, y, by="time", time=-np.arange(N), n_experiences=3)
    assert rows(backwards.test_stream)[0] == [43, 42, 41, 40]
    days = np.datetime64("2013-01-30") + np.arange(N) % 3  # two of January, one of February
    monthly = from_arrays(X, y, by="time", time=days, every="month")
    assert [len(part) for part in rows(monthly.train_stream)] == [32, 16]
    assert {i % 3 for i in rows(monthly.train_stream)[1]} == {2}


def test_groups_stay_on_one_side():
    groups = np.arange(N) % 12
    benchmark = from_arrays(X, Y, n_experiences=3, groups=groups, validation=0.25)
    sides = [set(groups[together(benchmark, stream)]) for stream in ("train", "valid", "test")]
    assert sum(map(len, sides)) == 12 and not sides[0] & sides[1] and not sides[2] & (sides[0] | sides[1])


def test_a_mask_says_which_are_for_testing():
    mask = np.arange(N) % 4 == 1
    assert together(from_arrays(X, Y, n_experiences=3, test=mask), "test") == np.flatnonzero(mask).tolist()


def test_numbers_are_standardised_by_the_first_experience_alone():
    drifting = X + np.repeat([[0.0], [50.0], [500.0]], 20, axis=0)
    benchmark = from_arrays(drifting, Y, n_experiences=3, class_order=["cat", "ant", "bee"])
    first, second = (e.tensors().x for e in benchmark.train_stream[:2])
    assert first.dtype == torch.float32
    torch.testing.assert_close(first.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.std(0, correction=0), torch.ones(4))
    learned = drifting[rows(benchmark.train_stream)[0]]
    there = (drifting[rows(benchmark.train_stream)[1]] - learned.mean(0)) / learned.std(0)
    torch.testing.assert_close(second, torch.from_numpy(there).float())
    torch.testing.assert_close(benchmark.encoding(torch.from_numpy(drifting[[0]])), first[[0]])
    plain = from_arrays(drifting, Y, n_experiences=3, standardise=False).train_stream[0].tensors()
    assert torch.equal(plain.x, torch.from_numpy(drifting).float()[plain.index])


def test_a_column_that_says_nothing_at_first_is_told_of():
    x = X.copy()
    x[:, 0] = 7.0
    x[:20, 1] = 3.0
    with pytest.warns(UserWarning) as told:
        benchmark = from_arrays(x, Y, n_experiences=3, class_order=["cat", "ant", "bee"])
    said = " ".join(str(w.message) for w in told)
    assert "column 0 of x never changes" in said and "column 1 of x hardly changes in the first experience" in said
    data = torch.cat([e.tensors().x for e in benchmark.train_stream])
    assert (data[:, 0] == 0).all() and data[:, 1].abs().max() < 5 and abs(float(data[:, 1].mean())) < 1e-5


@pytest.mark.parametrize("shape", [(N, 8, 8), (N, 8, 8, 3), (N, 3, 8, 8)])
def test_images_stay_bytes_with_mean_and_std(shape):
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    data = from_arrays(images, Y, n_experiences=3).train_stream[0].tensors()
    channels = 3 if 3 in shape else 1
    assert data.x.dtype == torch.uint8 and data.x.shape[1:] == (channels, 8, 8)
    levels = data.x.float().transpose(0, 1).flatten(1) / 255
    torch.testing.assert_close(torch.tensor(data.mean), levels.mean(1))
    torch.testing.assert_close(torch.tensor(data.std), levels.std(1, correction=0))
    with pytest.warns(UserWarning, match="never changes"):
        assert from_arrays(np.zeros_like(images), Y, n_experiences=3).train_stream[0].tensors().std == (1.0,) * channels


def test_files_of_arrays_are_read_without_executing_anything(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    benchmark = from_arrays(str(tmp_path / "x.npy"), tmp_path / "y.npy", n_experiences=3)
    assert benchmark.class_names == ("ant", "bee", "cat")
    np.save(tmp_path / "y.npy", np.array([{}] * N), allow_pickle=True)
    with pytest.raises(ValueError, match=r"y.npy is no .npy file of numbers or text"):
        from_arrays(X, tmp_path / "y.npy")


def with_cell(value):
    x = X.copy()
    x[17, 2] = value
    return x


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"x": with_cell(np.nan)}, r"example 17 \(counted from 0\) of x has nan in column 2: fill in"),
        ({"x": with_cell(np.inf)}, r"example 17 .* has inf in column 2"),
        ({"x": X.astype(str)}, "no numbers: bayesdual.scenarios.from_table"),
        ({"x": X[:, 0]}, r"shape \(60,\): give one row"),
        ({"y": Y[:-1]}, r"x has 60 examples and y has shape \(59,\)"),
        ({"y": np.eye(3)[np.arange(N) % 3]}, r"y has shape \(60, 3\)"),
        ({"y": [*Y[:-1], None]}, r"example 59 \(counted from 0\) of x has no label"),
        (
            {"y": X[:, 0]},
            "a number with a fraction: classes are whole numbers or names; for numbers, give targets numbers",
        ),
        ({"y": np.array([*"ab" * 29, 1, "1"], dtype=object)}, "of different kinds that are both written 1"),
        ({"y": ["a"] * N}, "x has one class, 'a'"),
        ({"y": [*Y[:-1], "one"]}, r"class 'one' of x has one example, example 59"),
        ({"n_experiences": 4}, r"3 classes \(ant, bee, cat\), fewer than the 4 experiences"),
        ({}, "fewer than the 5 experiences"),
        ({"n_experiences": 0}, "a whole number of at least 1"),
        ({"test": 0}, "test is 0.0: give a share between 0 and 1"),
        ({"test": 0.01, "n_experiences": 3}, r"has no example for the stream 'test': give another share as test"),
        ({"test": np.arange(N) < 20}, "class 'cat' of x is only among the examples for testing"),
        ({"validation": 1.0}, "validation is a share"),
        ({"by": "domain"}, "give domain, which says"),
        ({"domain": Y}, "domain is given, but the stream is cut by classes"),
        ({"by": "domain", "domain": [*["a"] * 59, "b"]}, "domain 'b' of x has no example for the stream 'test'"),
        ({"by": "domain", "domain": [*["a"] * 59, None]}, "example 59 .* has no domain"),
        ({"by": "domain", "domain": np.arange(N) % 2, "n_experiences": 3}, r"has 2 domains \(0, 1\)"),
        ({"time": np.arange(N)}, "but the stream is cut by classes"),
        ({"by": "time", "every": "month"}, "give time as dates"),
        ({"by": "time", "time": np.array(["2013-01-01", "NaT"] * 30, "M8[D]")}, "example 1 .* has no time"),
        ({"by": "time", "time": ["soon"] * N}, "example 0 .* has the time 'soon'"),
        ({"by": "time", "shuffle_classes": True}, "are of streams by classes"),
        ({"by": "sex"}, "by is 'sex'"),
        ({"class_order": ["ant", "bee"]}, "class_order names each class of ant, bee, cat once"),
        ({"groups": Y, "n_experiences": 3}, "as groups are drawn whole: give another seed or share"),
        ({"groups": ["a"] * N, "n_experiences": 3}, "groups has one value"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_arrays(**{"x": X, "y": Y, **given})
