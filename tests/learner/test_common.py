"""Benchmarks as Avalanche has them: one common test experience, several test streams, very unequal experiences."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks import nc_benchmark, ni_benchmark
from lightning import Trainer

from bayesdual.inspection import RunReport, evaluation_table
from bayesdual.learner import StreamDataModule
from bayesdual.models import MLP
from tests.learner.test_learner import fit_data, learner
from tests.learner.test_more import QUIET, data, part
from tests.learner.test_more import fit as fit_quietly
from tests.streams import Items, blobs, experience, of_datasets


def in_common(stream, at=0):
    """The stream, evaluated on one experience of all its classes."""
    classes = sorted({c for e in stream.train_stream for c in e.classes_in_this_experience})
    return SimpleNamespace(**{**vars(stream), "test_stream": [experience(classes, 20, 100, at)]})


def test_a_common_test_is_evaluated_after_each_experience(tmp_path, capsys):
    model = learner()
    trainer = Trainer(**QUIET, max_epochs=-1, enable_checkpointing=False, callbacks=RunReport(tmp_path))
    trainer.fit(model, data(in_common(blobs()), epochs=8))
    results = json.loads((tmp_path / "results.json").read_text())
    matrix = results["accuracy_matrix"]
    assert [row[1:] for row in matrix] == [[None, None]] * 3 and matrix[0][0] < 0.5 < matrix[2][0]
    assert results["average_accuracy"] == matrix[2][0] == pytest.approx(results["backward_transfer"] + matrix[0][0])
    assert results["forward_transfer"] is None and results["over_stream"] == [] == results["drift"]
    out = capsys.readouterr().out
    assert f"experience 2/3 learned: accuracy on the common test {matrix[1][0]:.3f}\n" in out and "nan" not in out


def test_avalanches_instance_incremental_benchmarks_are_learned():
    y = torch.arange(80) % 4
    x = torch.randn(80, 16) + 3 * torch.nn.functional.one_hot(y, 16)
    benchmark = ni_benchmark(Items(x[:60], y[:60].tolist()), Items(x[60:], y[60:].tolist()), 3, task_labels=False)
    model = learner(MLP(16, (32,), 4))
    fit_data(model, StreamDataModule(benchmark, epochs=8, batch_size=8))
    assert model.history.results()["average_accuracy"] > 0.8


def test_what_was_evaluated_in_common_is_evaluated_again_with_what_comes_next():
    first, third = part(blobs(), [0, 1]), part(blobs(), [2])
    model = fit_quietly(learner(), data(in_common(first)))
    fit_quietly(model, data(third))
    known = [not math.isnan(a) for a in model.history.accuracy[-1]]
    assert known == [True, False, True]


def test_the_command_test_says_a_common_test_once(tmp_path):
    stream = StreamDataModule(in_common(blobs()), epochs=1, batch_size=16)
    model = learner()
    trainer = Trainer(**QUIET, max_epochs=-1, enable_checkpointing=False)
    trainer.fit(model, stream)
    trainer.test(model, stream, verbose=False)
    table = evaluation_table(model.latest_evaluation, "test")
    assert list(table.columns[0].cells)[:2] == ["1", "average"] and "nan" not in str(list(table.columns[1].cells))


def test_a_stream_with_some_but_not_all_tests_is_refused():
    stream = blobs()
    stream.test_stream = stream.test_stream[:2]
    with pytest.raises(
        ValueError, match="3 experiences to learn and 2 in the stream 'test': give as many.* or one that"
    ):
        fit_data(learner(), StreamDataModule(stream, epochs=1, batch_size=16))


def test_another_test_stream_of_the_benchmark_is_evaluated_on_where_it_is_named():
    stream = blobs()
    stream.far_stream = [experience((2 * i, 2 * i + 1), 30, 300 + i, i) for i in range(3)]
    model = learner()
    fit_data(model, StreamDataModule(stream, epochs=1, batch_size=16, evaluate_on="far"))
    assert all(abs(a * 60 - round(a * 60)) < 1e-6 for a in model.history.accuracy[-1])


def test_experiences_of_very_different_sizes_and_a_class_without_examples_are_learned():
    sizes, streams = (300, 3, 30), blobs(n=20)
    streams.train_stream = [experience((2 * i, 2 * i + 1), n, i, i) for i, n in enumerate(sizes)]
    streams.train_stream[1].classes_in_this_experience.append(0)  # announced, and there are none
    model = learner(memory_size=12)
    fit_data(model, StreamDataModule(streams, epochs=4, batch_size=16))
    weights, y = model.algorithm.memory.exemplars.weights, model.algorithm.memory.exemplars.y
    assert [round(float(weights[y == c].sum())) for c in range(6)] == [300, 300, 3, 3, 30, 30]


def test_a_test_experience_without_examples_of_a_class_is_evaluated():
    y = [0, 1] * 10
    x = torch.randn(20, 16)
    model = learner()
    fit_data(
        model, StreamDataModule(of_datasets([(x, y), (x, [2] * 20)], [(x, [0] * 20), (x, [2] * 20)]), batch_size=8)
    )
    assert not any(map(math.isnan, model.history.accuracy[-1]))


def test_task_labels_of_avalanche_mask_the_other_tasks_classes():
    y = torch.arange(80) % 4
    x = torch.randn(80, 16)
    items = Items(x, y.tolist())
    benchmark = nc_benchmark(items, items, 2, task_labels=True, seed=0)
    model = learner(MLP(16, (32,), 4), memory_size=8)
    fit_data(model, StreamDataModule(benchmark, epochs=1, batch_size=8))
    assert model.task_mask.sum(1).tolist() == [2, 2]
