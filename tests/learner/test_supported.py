"""Features of Lightning on a stream: each works, or is refused at the start in a sentence."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    LambdaCallback,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies import FSDPStrategy, SingleDeviceStrategy

from bayesdual.learner import Learner, StreamDataModule
from bayesdual.learner.supported import refuse_unsupported
from bayesdual.models import MLP
from tests.learner.test_learner import fit_data, ivon, learner
from tests.streams import blobs, of_datasets

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def fit(model, ckpt_path=None, epochs=2, **settings):
    trainer = Trainer(**QUIET, **settings)
    data = StreamDataModule(blobs(), epochs=epochs, batch_size=16)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return model


class OwnAverage(StochasticWeightAveraging):
    """A user's, of one of Lightning's."""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"limit_train_batches": 2}, "trainer.limit_train_batches is 2"),
        ({"limit_train_batches": 0.5}, "trainer.limit_train_batches is 0.5"),
        ({"limit_val_batches": 2}, "trainer.limit_val_batches is 2"),
        ({"overfit_batches": 1}, "trainer.(limit_train|overfit)_batches is 1"),
        ({"val_check_interval": 0.5}, "trainer.val_check_interval is 0.5"),
        ({"callbacks": StochasticWeightAveraging(0.1)}, "StochasticWeightAveraging of Lightning is not known to work"),
        ({"callbacks": OwnAverage(0.1)}, "StochasticWeightAveraging of Lightning is not known to work"),
        ({"callbacks": EarlyStopping("nll")}, "EarlyStopping of Lightning is not known to work"),
        ({"callbacks": GradientAccumulationScheduler({0: 2})}, "GradientAccumulationScheduler of Lightning is not"),
        (
            {"callbacks": ModelCheckpoint(every_n_train_steps=3)},
            "give StreamCheckpoint every_n_steps or every_n_minutes",
        ),
        ({"max_time": "00:01:00:00"}, "stop in the middle of an epoch"),
        (
            {"precision": "64-true"},
            "trainer.precision is 64-true, which is not known to work on a stream: give one of 32",
        ),
        ({"precision": "bf16-true"}, "trainer.precision is bf16-true"),
        ({"callbacks": ModelCheckpoint(monitor="nll")}, "monitors 'nll', but a stream is evaluated at the end of each"),
        ({"check_val_every_n_epoch": 3}, "trainer.check_val_every_n_epoch is 3, which has no effect on a stream"),
        (
            {"reload_dataloaders_every_n_epochs": 2},
            "trainer.reload_dataloaders_every_n_epochs is 2, which has no effect",
        ),
    ],
)
def test_what_is_not_known_to_work_is_refused_at_the_start(tmp_path, settings, sentence):
    model = learner()
    with pytest.raises(ValueError, match=sentence):
        fit(model, max_epochs=-1, default_root_dir=tmp_path, **settings)
    assert not model.history.untrained and not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_part_of_a_stream_is_not_evaluated_for_the_whole(stage):
    name = f"limit_{stage.replace('validate', 'val')}_batches"
    for value in (1, 0, 0.5):
        trainer = Trainer(**QUIET, enable_checkpointing=False, **{name: value})
        with pytest.raises(ValueError, match=f"trainer.{name} is {value}: a stream is evaluated whole"):
            getattr(trainer, stage)(learner(), StreamDataModule(blobs(valid=True)))


def test_half_precision_by_autocast_is_learned():
    assert len(fit(learner(), max_epochs=-1, precision="bf16-mixed", enable_checkpointing=False).history.accuracy) == 3


def test_a_network_without_anything_to_learn_and_results_of_nothing_are_refused():
    frozen = learner(MLP(16, (8,), 6).requires_grad_(False))
    with pytest.raises(ValueError, match="model.network has no parameter that requires a gradient"):
        fit(frozen, max_epochs=-1, enable_checkpointing=False)
    with pytest.raises(ValueError, match="no experience has been learned to its end and evaluated"):
        frozen.history.results()


def test_inputs_that_are_not_scaled_are_warned_of():
    parts = [(scale * torch.randn(40, 16), [i % 6 for i in range(40)]) for scale in (1, 1, 400)]
    with pytest.warns(UserWarning, match=r"inputs of data.benchmark are as large as \d{3} \(root mean square over 40"):
        fit_data(learner(), StreamDataModule(of_datasets(parts[2:], parts[2:]), batch_size=16))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit_data(learner(), StreamDataModule(of_datasets(parts[:2], parts[:2]), batch_size=16))
    assert not [w for w in told if "root mean square" in str(w.message)]


def test_a_strategy_that_shards_parameters_is_refused():
    trainer = SimpleNamespace(
        fast_dev_run=False, max_steps=-1, callbacks=[], limit_train_batches=1.0, limit_val_batches=1.0,
        overfit_batches=0.0, val_check_interval=1.0, precision="32-true", check_val_every_n_epoch=1,
        reload_dataloaders_every_n_epochs=0, strategy=FSDPStrategy(), lightning_module=learner(),
    )  # fmt: skip
    with pytest.raises(ValueError, match="trainer.strategy is FSDPStrategy, which is not known to work"):
        refuse_unsupported(trainer, trainer.lightning_module.network)
    trainer.strategy = SingleDeviceStrategy("cpu")
    refuse_unsupported(trainer, trainer.lightning_module.network)


def in_place():
    network = MLP(16, (8,), 6)
    network.compile(backend="eager")
    return network


@pytest.mark.parametrize("network", [lambda: torch.compile(MLP(16, (8,), 6), backend="eager"), in_place])
def test_a_compiled_network_is_refused(network):
    with pytest.raises(ValueError, match="the network is compiled by torch.compile, behind which its layers are not"):
        fit(learner(network()), max_epochs=-1, enable_checkpointing=False)


def test_a_compiled_learner_is_refused():
    with pytest.raises(ValueError, match="the learner is compiled by torch.compile"):
        fit(torch.compile(learner(), backend="eager"), max_epochs=-1, enable_checkpointing=False)


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_lightnings_own_checkpoints_of_epochs_resume_to_the_same(tmp_path):
    """It writes at the end of the evaluation by itself, before the accuracies are noted."""
    all_epochs = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    watched = []
    seen = LambdaCallback(on_train_epoch_end=lambda *_: watched.append(1))
    whole = fit(learner(), callbacks=[all_epochs, seen], max_epochs=-1)
    assert len(watched) == 6 and len(list(tmp_path.glob("*.ckpt"))) == 6
    for epoch in (2, 3):  # the middle, and the end of the second experience
        resumed = fit(learner(seed=5), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", enable_checkpointing=False)
        assert resumed.history.accuracy == whole.history.accuracy and same(whole, resumed)


class InTheMiddle(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.path)


def test_a_checkpoint_of_the_last_batch_of_an_epoch_is_refused_by_fit_and_can_be_evaluated(tmp_path):
    path = tmp_path / "some.ckpt"
    fit(learner(), max_epochs=1, callbacks=InTheMiddle(path), enable_checkpointing=False)
    with pytest.raises(
        ValueError, match="after the last batch of an epoch, which a stream cannot go on from: give one"
    ):
        fit(learner(), ckpt_path=path, enable_checkpointing=False)
    trainer = Trainer(**QUIET)
    trainer.test(learner(), StreamDataModule(blobs()), ckpt_path=path, weights_only=True, verbose=False)


def test_an_algorithm_is_of_one_learner():
    model = learner()
    fit_data(model, StreamDataModule(blobs(), epochs=1, batch_size=16))
    kept = model.algorithm.memory.exemplars
    with pytest.raises(ValueError, match="this algorithm has learned a stream already"):
        fit_data(Learner(model.network, model.algorithm, ivon), StreamDataModule(blobs(2), epochs=1, batch_size=16))
    assert model.algorithm.memory.exemplars is kept


def test_a_learner_and_a_stream_that_stand_at_different_places_are_refused():
    data = StreamDataModule(blobs(), epochs=1, batch_size=16)
    trainer = Trainer(**QUIET, max_epochs=1, enable_checkpointing=False)
    trainer.fit(learner(), data)
    with pytest.raises(ValueError, match="this Learner has learned 0 experiences and the StreamDataModule stands at"):
        fit_data(learner(), data)
