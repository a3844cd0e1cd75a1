"""Several processes that share a batch learn what one learns, to rounding; what they cannot share out is refused."""

from functools import partial

import pytest
import torch
from lightning import Callback, Trainer
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException

from bayesdual.learner import Learner, StreamCheckpoint, StreamDataModule
from tests.learner.test_learner import adam, ivon, learner
from tests.learner.test_within_epochs import QUIET
from tests.streams import blobs, blobs_behind_loaders


class Double(nn.Sequential):
    """A network in float64, where rounding hides nothing."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 6))
        self.double()

    def forward(self, x):
        return super().forward(x.double())


def run(folder, ranks, stream, optimizer=None, batch_size=12, **settings):
    """Learns 3 experiences on some processes, and returns what the last checkpoint holds."""
    torch.manual_seed(0)
    model = learner(Double(), memory_size=12, replay_batch_size=12)
    model = Learner(model.network, model.algorithm, optimizer, lr_end=0.1)
    data = StreamDataModule(stream(), epochs=2, batch_size=batch_size, **settings)
    several = {"devices": ranks, "strategy": "ddp_fork"} if ranks > 1 else {"devices": 1}
    trainer = Trainer(**QUIET, max_epochs=-1, callbacks=[StreamCheckpoint(folder)], **several)
    trainer.fit(model, datamodule=data)
    return torch.load(folder / "last.ckpt", weights_only=True)


def assert_alike(one, other):
    for name, tensor in one["state_dict"].items():
        assert torch.allclose(tensor, other["state_dict"][name], rtol=0, atol=1e-5), name
    memories = [saved["bayesdual"]["algorithm"]["memory"]["exemplars"] for saved in (one, other)]
    assert torch.equal(memories[0]["index"], memories[1]["index"])
    assert torch.allclose(memories[0]["logits"].double(), memories[1]["logits"].double(), atol=1e-4)
    assert one["bayesdual"]["history"]["accuracy"] == other["bayesdual"]["history"]["accuracy"]
    groups = [saved["optimizer_states"][0]["param_groups"][0] for saved in (one, other)]
    assert groups[0]["initial_lr"] == groups[1]["initial_lr"]


@pytest.mark.parametrize(
    ("ranks", "stream", "optimizer"),
    [(2, partial(blobs, n=19), None), (4, partial(blobs, n=19), ivon), (2, partial(blobs_behind_loaders, n=19), adam)],
    ids=["2-by-rule", "4-ivon", "2-loader-adam"],
)
def test_processes_that_share_a_batch_learn_what_one_does(tmp_path, ranks, stream, optimizer, monkeypatch):
    """38 examples in batches of 12: the last batch of 2 is less than one for each of 4 processes."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")  # by which Lightning seeds processes
    one, several = (run(tmp_path / str(n), n, stream, optimizer) for n in (1, ranks))
    assert_alike(one, several)


def test_a_batch_of_each_process_is_that_of_all_in_parts(tmp_path):
    each = run(tmp_path / "each", 2, partial(blobs, n=19), batch_size=6, batch_size_of="each")
    whole = run(tmp_path / "whole", 1, partial(blobs, n=19), batch_size=12)
    rates = [saved["optimizer_states"][0]["param_groups"][0]["initial_lr"] for saved in (each, whole)]
    assert rates[0] == rates[1]  # the rule counts as many steps
    assert each["global_step"] == whole["global_step"]


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    with pytest.raises(
        ProcessRaisedException, match="data.batch_size is 13, which 2 processes cannot share out evenly"
    ):
        run(tmp_path, 2, blobs, batch_size=13)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="data.batch_size_of is 'both': give all, or each"):
        StreamDataModule(blobs(), batch_size_of="both")


class Astray(Callback):
    """Changes a weight in the second process, or, at the start, the data."""

    def on_train_batch_end(self, trainer, module, *_):
        with torch.no_grad():
            next(module.network.parameters()).view(-1)[0] += trainer.global_rank


def other_blobs_in_each():
    return blobs(n=19 + torch.distributed.is_initialized() * torch.distributed.get_rank())


@pytest.mark.parametrize(
    ("callbacks", "stream", "sentence"),
    [
        ([Astray()], blobs, "the network of process 1 is not that of process 0: the last checkpoint is from before"),
        ([], other_blobs_in_each, "what data.benchmark gives of process 1 is not that of process 0: have the same"),
    ],
    ids=["network", "data"],
)
def test_processes_that_come_to_hold_something_else_stop(tmp_path, callbacks, stream, sentence):
    data = StreamDataModule(stream, batch_size=12)
    writer = StreamCheckpoint(tmp_path)
    trainer = Trainer(**QUIET, max_epochs=1, callbacks=[*callbacks, writer], devices=2, strategy="ddp_fork")
    with pytest.raises(ProcessRaisedException, match=sentence):
        trainer.fit(learner(), data)
    assert not list(tmp_path.iterdir())
