"""One more experience: what a learner has learned to the end is gone on with, in this process or another."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from torch import nn

from bayesdual.learner import StreamCheckpoint, StreamDataModule
from bayesdual.models import MLP
from tests.learner.test_learner import adam, ivon, learner
from tests.streams import blobs, experience

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def part(stream, places):
    """Some of the experiences of a stream."""
    return SimpleNamespace(**{name: [e[i] for i in places] for name, e in vars(stream).items()})


def data(stream, **settings):
    return StreamDataModule(stream, **{"epochs": 2, "batch_size": 16, **settings})


def fit(model, stream, folder=None, ckpt_path=None, max_epochs=-1):
    Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        enable_checkpointing=folder is not None,
        **QUIET,
        callbacks=None if folder is None else [StreamCheckpoint(folder)],
    ).fit(model, datamodule=stream, ckpt_path=ckpt_path, weights_only=True)
    return model


def with_dropout():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 6))


def made(optimizer, network=with_dropout):
    torch.manual_seed(0)
    return learner(network(), optimizer)


def seeded(stream, **settings):
    torch.manual_seed(1)
    return data(stream, **settings)


def assert_same(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name
    theirs = b.algorithm.memory.exemplars.tensors()
    for name, x in a.algorithm.memory.exemplars.tensors().items():
        assert torch.equal(x, theirs[name]), name
    assert a.algorithm.memory.counts == b.algorithm.memory.counts
    assert all(torch.equal(x, b.algorithm.posterior.curvature[n]) for n, x in a.algorithm.posterior.curvature.items())
    assert a.history.accuracy[-1] == b.history.accuracy[-1] and a.history.nll == b.history.nll


@pytest.mark.parametrize("optimizer", [ivon, adam], ids=["ivon", "adam"])
def test_two_experiences_and_then_one_are_the_three_known_at_the_start(tmp_path, optimizer):
    whole = fit(made(optimizer), seeded(blobs()))
    first, third = part(blobs(), [0, 1]), part(blobs(), [2])
    here = fit(made(optimizer), seeded(first), tmp_path / "first")
    fit(here, data(third))
    assert_same(whole, here)
    accuracy = here.history.accuracy
    assert [len(row) for row in accuracy] == [3, 3, 3] and math.isnan(accuracy[1][2])

    torch.manual_seed(5)  # another process, killed once, which has the test data of the first stream
    again = lambda: data(third).after(data(first))  # noqa: E731
    fit(learner(with_dropout(), optimizer), again(), tmp_path / "more", tmp_path / "first/last.ckpt", max_epochs=1)
    there = fit(learner(with_dropout(), optimizer), again(), tmp_path / "more", tmp_path / "more/last.ckpt")
    assert_same(whole, there)
    finished = fit(learner(with_dropout(), optimizer), again(), None, tmp_path / "more/last.ckpt")
    assert_same(whole, finished)


def test_old_test_data_that_are_not_given_are_left_out_of_the_measures(tmp_path):
    first, third = part(blobs(), [0, 1]), part(blobs(), [2])
    fit(made(ivon), seeded(first), tmp_path)
    model = fit(made(ivon), data(third).after(), None, tmp_path / "last.ckpt")
    row = model.history.accuracy[-1]
    assert math.isnan(row[0]) and math.isnan(row[1])
    assert model.history.results()["average_accuracy"] == row[2]


@pytest.mark.parametrize("optimizer", [ivon, adam], ids=["ivon", "adam"])
def test_the_head_grows_for_new_classes_and_a_checkpoint_of_it_is_read(tmp_path, optimizer):
    narrow = lambda: nn.Sequential(MLP(16, (32,), 4))  # noqa: E731
    first, third = part(blobs(), [0, 1]), part(blobs(), [2])
    model = fit(made(optimizer, narrow), seeded(first, epochs=8))
    before = dict(model.network.named_parameters())["0.3.weight"].detach().clone()
    fit(model, data(third, epochs=8), tmp_path)
    assert model.network[0][3].weight.shape == (6, 32) and model.network[0][3].out_features == 6
    assert model.algorithm.memory.exemplars.logits.shape[1] == 6
    assert 0 < float((model.network[0][3].weight[:4] - before).abs().max()) < 1
    assert min(model.history.accuracy[-1]) > 0.4
    assert model.algorithm.posterior.mean["0.3.weight"].shape == (6, 32)
    other = made(optimizer, narrow)
    Trainer(accelerator="cpu", **QUIET).test(
        other, data(third), ckpt_path=tmp_path / "last.ckpt", weights_only=True, verbose=False
    )
    assert other.latest_evaluation["accuracy"] == model.history.accuracy[-1][2:]
    fourth = SimpleNamespace(train_stream=[experience((6, 7), 40, 7)], test_stream=[experience((6, 7), 40, 8)])
    other = fit(made(optimizer, narrow), data(fourth).after(), None, tmp_path / "last.ckpt")
    assert other.network[0][3].weight.shape == (8, 32) and len(other.history.accuracy) == 4
    assert {c for c, _ in other.algorithm.memory.counts} == set(range(8))


def test_a_head_that_cannot_grow_is_said_before_it_learns():
    class Twice(MLP):
        def forward(self, x):
            return 2 * super().forward(x)

    model = fit(made(ivon, lambda: Twice(16, (8,), 4)), data(part(blobs(), [0, 1])))
    with pytest.raises(ValueError, match="brings classes up to 5, but model.network tells 4 apart, .* could grow"):
        fit(model, data(part(blobs(), [2])))
    assert len(model.history.accuracy) == 2


def test_task_labels_go_on(tmp_path):
    stream = blobs(task_labels=True)
    whole = fit(made(ivon), seeded(stream))
    fit(made(ivon), seeded(part(stream, [0, 1])), tmp_path)
    model = fit(made(ivon), data(part(stream, [2])).after(data(part(stream, [0, 1]))), None, tmp_path / "last.ckpt")
    assert model.task_mask.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert [len(row) for row in model.history.accuracy] == [3, 3, 3] == [len(row) for row in whole.history.accuracy]
    other = SimpleNamespace(
        train_stream=[experience((4, 5), 40, 7, 0, 1)], test_stream=[experience((4, 5), 40, 8, 0, 1)]
    )
    with pytest.raises(ValueError, match=r"the class 4 with the task label 1, .* learned with the classes \[2, 3\]"):
        fit(made(ivon), data(other).after(), None, tmp_path / "last.ckpt")


def changed(**parts):
    stream = part(blobs(), [2])
    for e in (*stream.train_stream, *stream.test_stream):
        tensors = replace(e.tensors(), **{k: change(e.tensors()) for k, change in parts.items()})
        e.tensors = lambda tensors=tensors: tensors
    return stream


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (changed(x=lambda d: d.x.reshape(-1, 1, 2, 8)), r"shape \(1, 2, 8\), but \(1, 4, 4\) has been learned"),
        (changed(mean=lambda d: (0.5,)), r"normalised by the mean \(0.5,\), but \(0.4,\) has been learned"),
        (part(blobs(task_labels=True), [2]), "has the task label 2, but what was learned before has no task labels"),
    ],
)
def test_what_cannot_come_next_is_refused_before_it_is_learned(stream, complaint):
    model = fit(made(ivon), data(part(blobs(), [0, 1]), epochs=1))
    with pytest.raises(ValueError, match=complaint):
        fit(model, data(stream))
    assert len(model.history.accuracy) == 2 and model.algorithm.memory.examples_seen == 160


def test_a_stream_is_finished_before_another_one_begins(tmp_path):
    model = fit(made(ivon), data(blobs()), tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match="in the middle of another stream, in experience 1 of 3: finish that first"):
        fit(model, data(blobs(1)))
    with pytest.raises(ValueError, match="the checkpoint is in the middle of another stream, in experience 1 of 3"):
        fit(made(ivon), data(blobs(1)).after(), None, tmp_path / "last.ckpt")


def test_another_month_may_look_like_the_last(tmp_path):
    """Data of the same classes and sizes are learned, the same data again are not."""
    first = part(blobs(), [0])
    next_one = SimpleNamespace(train_stream=[experience((0, 1), 40, 33)], test_stream=first.test_stream)
    after_next = SimpleNamespace(train_stream=[experience((0, 1), 40, 34)], test_stream=first.test_stream)
    last = tmp_path / "last.ckpt"
    fit(made(ivon), data(first), tmp_path)
    fit(made(ivon), data(next_one).after(), tmp_path, last)
    again = fit(made(ivon), data(next_one).after(), tmp_path, last)
    assert again.algorithm.memory.counts == {(c, e): 40 for c in (0, 1) for e in (0, 1)}
    third = fit(made(ivon), data(after_next, epochs=3).after(data(next_one)), tmp_path, last)
    assert [math.isnan(a) for a in third.history.accuracy[-1]] == [True, False, False]
    assert third.algorithm.memory.examples_seen == 240 and third.stream.experience == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"experience_{k}.ckpt" for k in (1, 2, 3)] + ["last.ckpt"]
    with pytest.raises(ValueError, match="StreamDataModule.after was given 4 streams, but 3 have been learned"):
        fit(made(ivon), data(blobs(1)).after(*[None] * 4), None, last)


def test_a_refused_stream_leaves_the_learner_as_it_was():
    """And the stream that comes next after it is learned, and evaluated, by what was learned."""
    whole = fit(made(ivon), seeded(blobs(task_labels=True)))
    model = fit(made(ivon), seeded(part(blobs(task_labels=True), [0, 1])))
    for stream in (changed(mean=lambda d: (0.5,)), part(blobs(), [2])):
        with pytest.raises(ValueError):
            fit(model, data(stream))
    third = data(part(blobs(task_labels=True), [2]))
    fit(model, third)
    assert_same(whole, model)
    Trainer(accelerator="cpu", **QUIET).test(model, third, verbose=False)
    assert model.latest_evaluation["accuracy"] == whole.history.accuracy[-1]
    assert torch.equal(model.task_mask, whole.task_mask)
