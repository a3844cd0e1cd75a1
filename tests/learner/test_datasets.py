"""Streams of datasets, read through a loader: as good as tensors; what cannot be learned is refused in a sentence."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from lightning import Trainer
from torch import nn

from bayesdual.learner import StreamCheckpoint, StreamDataModule
from bayesdual.stream import experience_data
from tests.learner.test_learner import Divided, fit, fit_data, ivon, learner
from tests.streams import blobs, blobs_behind_loaders, experience, of_datasets


def stream(x, y, wrap=None):
    """Two experiences of half the examples each, which are evaluated as well."""
    n = len(y) // 2
    parts = [(x[:n], y[:n]), (x[n:], y[n:])]
    return of_datasets(parts, parts, wrap=wrap)


def as_tensors(benchmark):
    """The same stream, held as tensors."""
    for name in ("train_stream", "test_stream"):
        for e in getattr(benchmark, name):
            data = experience_data(e)
            held = experience([0], 1, 0).tensors()
            x = data.inputs(torch.arange(len(data)))
            held = replace(held, x=x, y=data.y, tasks=data.tasks, index=data.index, mean=(), std=())
            e.tensors = lambda held=held: held
            e.classes_in_this_experience = data.y.unique().tolist()
    return benchmark


class KeepAll(StreamCheckpoint):
    """Keeps the checkpoint of each epoch, as the run would have been stopped then."""

    def on_train_epoch_end(self, trainer, pl_module):
        super().on_train_epoch_end(trainer, pl_module)
        number = trainer.datamodule.experience * trainer.datamodule.epochs + trainer.datamodule.epoch
        shutil.copyfile(self.directory / "last.ckpt", self.directory / f"{number}.ckpt")


def run(benchmark, folder, workers=0, ckpt_path=None):
    """Learns, and returns all that is left."""
    seed = 5 if ckpt_path else 0  # what a new process draws must not matter
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 6))
    model = learner(network, seed=seed)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": -1}
    data = StreamDataModule(benchmark, epochs=2, batch_size=16, workers=workers)
    trainer = Trainer(**quiet, accelerator="cpu", callbacks=[KeepAll(folder)])
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    memory = model.algorithm.memory.exemplars.tensors()
    return {**model.state_dict(), **memory, "accuracy": torch.tensor(model.history.accuracy)}


@pytest.mark.filterwarnings("ignore")  # workers fork
def test_a_run_through_loaders_resumes_to_the_bit_at_every_epoch_end_and_is_that_on_tensors(tmp_path):
    expected = run(as_tensors(blobs_behind_loaders()), tmp_path)
    others = {"loader": run(blobs_behind_loaders(), tmp_path)}
    for stop in range(1, 6):
        last = tmp_path / f"{stop}.ckpt"
        others[f"stop {stop}"] = run(blobs_behind_loaders(), tmp_path / "resumed", 2 * (stop == 4), last)
    for which, held in others.items():
        for name, tensor in expected.items():
            assert torch.equal(tensor, held[name]), (which, name)


def test_two_processes_read_each_example_once(tmp_path):
    model = learner()
    divided = Divided(model.network, model.algorithm, ivon, lr_end=0.1)
    benchmark = blobs_behind_loaders(n=41)
    results = fit(divided, benchmark, tmp_path, epochs=2, devices=2, strategy="ddp_fork")
    assert all(abs(a * 82 - round(a * 82)) < 1e-6 for a in results["accuracy_matrix"][-1])


def labelled(labels):
    """A stream whose targets are these, without the help of Avalanche's classification datasets."""

    def wrap(items):
        return AvalancheDataset([items], data_attributes=[DataAttribute(items.targets, "targets")])

    return stream(torch.randn(len(labels), 16), labels, wrap)


class OneOutput(nn.Module):
    """Returns what has no logits."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 6)

    def forward(self, x):
        return {"answers": self.layer(x)}


X, Y = torch.randn(40, 16), [i % 6 for i in range(40)]


@pytest.mark.parametrize(
    ("make", "network", "sentence"),
    [
        (
            lambda: labelled([0.25 * i for i in range(20)]),
            None,
            "experience 1 of .* are floats, .* give algorithm.likelihood gaussian",
        ),
        (lambda: labelled(["a", "b"] * 10), None, "labels of experience 1 of the stream 'test' .* are text"),
        (lambda: labelled(list(torch.eye(20))), None, r"have shape \(N, 20\)"),
        (lambda: labelled(np.arange(20)[:, None].tolist()), None, r"have shape \(N, 1\)"),
        (lambda: stream([object()] * 40, Y), None, "inputs of experience 1 .* are object, which is no tensor"),
        (lambda: stream((255 * X.abs()).to(torch.uint8), Y), None, "uint8 as they are: give the mean and std"),
        (lambda: stream(X, Y), OneOutput, "network returns dict for one input, not logits"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_learned(make, network, sentence):
    model = learner(nn.Sequential(nn.Linear(16, 6)) if network is None else network())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        fit_data(model, StreamDataModule(make(), epochs=1, batch_size=16))
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())


def test_a_missing_value_is_blamed_on_the_input_and_not_on_the_learning_rate():
    x = X.clone()
    x[27, 3] = torch.nan
    with pytest.raises(ValueError, match=r"example 7 \(counted from 0\) of experience 2 of .* has the input nan"):
        fit_data(learner(), StreamDataModule(stream(x, Y), epochs=1, batch_size=16))
    held = blobs()
    data = held.train_stream[1].tensors()
    y = data.x.float()
    y[5] = -torch.inf  # a ReLU would make 0 of it
    held.train_stream[1].tensors = lambda: replace(data, x=y, mean=(), std=())
    with pytest.raises(ValueError, match=r"example 5 .* of experience 2 of data.benchmark has the input -inf"):
        fit_data(learner(), StreamDataModule(held, epochs=1, batch_size=16))


def test_a_label_that_was_not_announced_is_refused():
    held = blobs()
    data = held.train_stream[1].tensors()
    held.train_stream[1].tensors = lambda: replace(data, y=data.y + 1)
    with pytest.raises(ValueError, match=r"experience 2 of data.benchmark has the label 4, but its classes_in_this"):
        fit_data(learner(), StreamDataModule(held, epochs=1, batch_size=16))


def test_a_last_batch_of_one_under_batch_norm_is_said():
    network = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 6))
    with pytest.raises(ValueError, match="a batch of one example in experience 1, epoch 1: .* another data.batch_size"):
        fit_data(learner(network), StreamDataModule(stream(X[:34], Y[:34]), epochs=1, batch_size=16))
