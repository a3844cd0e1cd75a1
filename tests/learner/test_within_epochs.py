"""A run stopped in the middle of an epoch goes on as if it had not been: all that it leaves is the same bits."""

import os
import shutil
import signal
from functools import partial

import pytest
import torch
from avalanche.benchmarks.utils import TransformGroups, as_classification_dataset
from lightning import Callback, Trainer
from torch import nn

from bayesdual.learner import StreamCheckpoint, StreamDataModule
from bayesdual.models import CNN
from tests.learner.test_learner import adam, ivon, learner
from tests.streams import blobs, of_datasets

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class KeepEach(StreamCheckpoint):
    """Keeps every checkpoint, by the number of steps that were made before it."""

    def _write(self, trainer, name):
        written = super()._write(trainer, name)
        if trainer.is_global_zero:
            shutil.copyfile(written, self.directory / f"{trainer.global_step}.ckpt")
        return written


def noisy(x):
    return x + 0.1 * torch.randn(x.shape)


def augmented(items):
    return as_classification_dataset(items, transform_groups=TransformGroups({"train": (noisy, None), "eval": None}))


def behind_loaders():
    """Blobs read through a loader, and augmented."""
    held = blobs(n=20)
    streams = [
        [(e.tensors().x.float() / 60, e.tensors().y.tolist()) for e in s] for s in (held.train_stream, held.test_stream)
    ]
    return of_datasets(*streams, wrap=augmented)


def dropping():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 6))


def normed():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), CNN(4, 4, 6))


def run(
    folder, stream, network, ckpt_path=None, optimizer=ivon, workers=0, every=1, batch_size=14, more=(), **settings
):
    """Learns 3 experiences of 2 epochs of 3 batches; the folder has a checkpoint of every step in the end."""
    seed = 5 if ckpt_path else 0  # what a new process draws must not matter
    torch.manual_seed(seed)
    model = learner(network(), optimizer, seed=seed)
    data = StreamDataModule(stream(), epochs=2, batch_size=batch_size, workers=workers)
    saving = KeepEach(folder, every_n_steps=every)
    trainer = Trainer(**QUIET, max_epochs=-1, callbacks=[saving, *more], **settings)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)


def left(folder):
    """All that a run left in its last checkpoint, but for the clock, as a flat mapping."""
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    saved["bayesdual"]["history"].pop("seconds")
    loops = saved.pop("loops")["fit_loop"]
    saved.pop("callbacks")
    steps = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    flat = {"steps": steps, "epochs": loops["epoch_progress"], "logged": loops["epoch_loop.state_dict"]}

    def flatten(value, place):
        if isinstance(value, dict | list | tuple):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in pairs:
                flatten(part, f"{place}/{key}")
        else:
            flat[place] = value

    flatten(saved, "")
    return flat


def assert_same(a, b):
    assert a.keys() == b.keys()
    other = [place for place, value in a.items() if not same(value, b[place])]
    assert not other


def same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b or a != a


@pytest.mark.filterwarnings("ignore")  # workers fork
@pytest.mark.parametrize(
    ("stream", "network", "settings", "steps"),
    [
        (partial(blobs, n=20), dropping, {}, (2, 7, 13)),
        (partial(blobs, n=20), normed, {"optimizer": adam}, (1, 8)),
        (behind_loaders, normed, {}, (8,)),
        (behind_loaders, dropping, {"workers": 2}, (7,)),
        (partial(blobs, n=32), dropping, {"accumulate_grad_batches": 2, "every": 2}, (2, 14)),
    ],
    ids=["tensors-mlp", "tensors-cnn-adam", "loader-cnn", "workers-mlp", "accumulated"],
)
def test_a_run_stopped_after_any_step_resumes_to_the_bit(tmp_path, stream, network, settings, steps):
    run(tmp_path / "whole", stream, network, **settings)
    expected = left(tmp_path / "whole")
    for step in steps:
        saved = torch.load(tmp_path / f"whole/{step}.ckpt", weights_only=True)
        assert saved["bayesdual"]["within_epoch"] and saved["bayesdual"]["batches"], step
        run(
            tmp_path / "resumed",
            stream,
            network,
            tmp_path / f"whole/{step}.ckpt",
            **{**settings, "workers": 0, "every": None},
        )
        assert_same(expected, left(tmp_path / "resumed"))


class Apart(Callback):
    """Processes whose generators stand at different places."""

    def __init__(self, seed):
        self.seed = seed

    def on_fit_start(self, trainer, pl_module):
        torch.manual_seed(10 * self.seed + trainer.global_rank)


def test_two_processes_resume_to_the_bit_each_with_its_own_generators(tmp_path):
    settings = {"devices": 2, "strategy": "ddp_fork"}
    run(tmp_path / "whole", partial(blobs, n=20), dropping, more=[Apart(1)], **settings)
    saved = tmp_path / "whole/8.ckpt"
    run(tmp_path / "resumed", partial(blobs, n=20), dropping, saved, more=[Apart(2)], every=None, **settings)
    assert_same(left(tmp_path / "whole"), left(tmp_path / "resumed"))
    with pytest.raises(ValueError, match="middle of an epoch with 14 new examples in a batch, .* and there are 7 now"):
        run(tmp_path / "resumed", partial(blobs, n=20), dropping, saved, batch_size=7)


class Terminate(Callback):
    """Tells the run to end in the middle of a step, as schedulers do."""

    def __init__(self, step):
        self.step = step

    def on_before_zero_grad(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_is_told_to_end_loses_no_step(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    run(tmp_path / "whole", partial(blobs, n=20), dropping, every=None)
    with pytest.raises(SystemExit):
        run(tmp_path / "ended", partial(blobs, n=20), dropping, every=None, more=[Terminate(7)])
    signal.signal(signal.SIGTERM, before)
    assert torch.load(tmp_path / "ended/last.ckpt", weights_only=True)["global_step"] == 8
    run(tmp_path / "ended", partial(blobs, n=20), dropping, tmp_path / "ended/last.ckpt")
    assert_same(left(tmp_path / "whole"), left(tmp_path / "ended"))


class Break(Callback):
    """Breaks the network in the middle of an epoch."""

    def on_train_batch_start(self, trainer, pl_module, *args):
        if trainer.global_step == 4:
            pl_module.network[1].weight.data.fill_(torch.nan)


def test_what_is_broken_takes_no_checkpoints_place(tmp_path):
    with pytest.raises(FloatingPointError, match="became nan in experience 1, epoch 2"):
        run(tmp_path, partial(blobs, n=20), dropping, optimizer=adam, more=[Break()])
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4 and all(v.isfinite().all() for v in last["state_dict"].values())


def test_checkpoints_come_by_the_minute_too(tmp_path):
    always, never = (StreamCheckpoint(tmp_path, every_n_minutes=minutes) for minutes in (1e-9, 1e9))
    assert always._is_due(step=1) and not never._is_due(step=1)
    for name in ("every_n_steps", "every_n_minutes"):
        with pytest.raises(ValueError, match=f"checkpoint.{name} is 0: give more than 0"):
            StreamCheckpoint(tmp_path, **{name: 0})
