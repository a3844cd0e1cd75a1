"""A stream of texts: learned, remembered, predicted by samples, saved and gone on with, by the command line."""

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from avalanche.models import IncrementalClassifier
from lightning import Trainer, seed_everything

from bayesdual import BayesDual, Learner, Posterior, StreamDataModule
from bayesdual.__main__ import main
from bayesdual.lora import LoRAClassifier
from bayesdual.memory import Memory
from bayesdual.scenarios import SplitCLINC150
from tests.texts import save_encoder

pytestmark = pytest.mark.filterwarnings("ignore")
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def call(*argv):
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(word) for word in argv])
    return status, out.getvalue(), err.getvalue()


def fit(encoder, data, *more):
    settings = {
        "data.benchmark.init_args.n_experiences": 2, "data.benchmark.init_args.root": data,
        "data.benchmark.init_args.length": 12, "data.epochs": 5, "data.batch_size": 4,
        "model.network.init_args.folder": encoder, "model.network.init_args.n_classes": 4,
        "model.network.init_args.r": 4, "model.optimizer": "bayesdual.IVON",  # the rule is for larger ones
        "model.optimizer.init_args.lr": 0.2, "model.optimizer.init_args.ess": 24,
        "model.optimizer.init_args.hess_init": 100, "model.algorithm.init_args.memory_size": 8,
        "model.algorithm.init_args.replay_batch_size": 16,
        "model.prediction": "weight_samples", "model.samples": 3, "trainer.enable_progress_bar": "false",
    }  # fmt: skip
    argv = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return call("fit", "--config", "configs/split_clinc150_lora.yaml", *argv, *more)


@pytest.fixture(scope="module")
def learned(encoder, data, tmp_path_factory):
    """A run directory, and what was printed."""
    folder = tmp_path_factory.mktemp("runs") / "texts"
    status, out, err = fit(encoder, data, "--run_dir", folder)
    assert status == 0, err
    return folder, out


def test_the_command_learns_and_leaves_an_adapter(learned, encoder):
    folder, out = learned
    assert "experience 2/2 learned" in out and "average accuracy" in out
    (first, _), (kept, _) = json.loads((folder / "results.json").read_text())["accuracy_matrix"]
    assert first > 0.8 and kept > 0.6  # of four intents
    network = LoRAClassifier.load(encoder, folder / "adapter").eval()
    posterior = Posterior.load(folder / "posterior.safetensors", network)  # adapter and head only, or it is refused
    assert all(torch.equal(posterior.mean[name], p) for name, p in network.named_parameters())
    z = Memory.load(folder / "memory.safetensors").exemplars
    assert z.x.dtype == torch.int16 and len(z) == 8
    assert (folder / "checkpoints" / "last.ckpt").stat().st_size < 300_000


def test_exemplars_are_texts_of_the_stream_and_never_means(learned, encoder, data):
    z = Memory.load(learned[0] / "memory.safetensors").exemplars
    stream = SplitCLINC150(encoder, 2, length=12, root=data).train_stream
    for x, y, e, i in zip(z.x, z.y, z.experience, z.index, strict=True):
        given = stream[int(e)].tensors()
        (row,) = torch.nonzero(given.index == i).flatten()
        assert torch.equal(given.x[row], x) and given.y[row] == y


def test_a_checkpoint_predicts_by_samples_of_the_adapter_and_refuses_another_encoder(learned, tmp_path):
    folder, _ = learned
    config = ["test", "--config", folder / "config.yaml", "--ckpt_path", folder / "checkpoints" / "last.ckpt"]
    nll = json.loads((folder / "results.json").read_text())["nll"]
    for prediction in ("weight_samples", "mean"):
        status, out, err = call(*config, "--model.prediction", prediction)
        assert status == 0, err
        assert (f"{nll:.4f}" in out) == (prediction == "weight_samples")
    status, out, err = call(*config, "--model.network.init_args.folder", save_encoder(tmp_path / "other", seed=1))
    assert status != 0 and "is of another encoder" in err and err.count("\n") == 1


def test_a_memory_in_bytes_holds_texts_in_few(encoder, data):
    seed_everything(0)
    algorithm = BayesDual(memory_bytes=1000, condensation=None, replay_batch_size=4)
    learner = Learner(LoRAClassifier(encoder, 4, r=2), algorithm)
    benchmark = SplitCLINC150(encoder, 2, length=12, root=data)
    Trainer(max_epochs=-1, **QUIET).fit(learner, StreamDataModule(benchmark, epochs=1, batch_size=8))
    assert len(algorithm.memory) > 30 and sum(algorithm.memory_bytes().values()) <= 1000
    state = algorithm.state_dict()
    again = BayesDual(memory_bytes=1000)
    again.load_state_dict(state)
    assert torch.equal(again.memory.exemplars.x, algorithm.memory.exemplars.x)


def test_a_head_that_grows_is_learned(encoder, data):
    seed_everything(0)
    network = LoRAClassifier(encoder, r=2)
    network.head = IncrementalClassifier(16, 2)
    learner = Learner(network, BayesDual(memory_size=8, replay_batch_size=4, condensation=None))
    benchmark = SplitCLINC150(encoder, 2, length=12, root=data)
    Trainer(max_epochs=-1, **QUIET).fit(learner, StreamDataModule(benchmark, epochs=2, batch_size=4))
    assert network.head.classifier.out_features == 4 and len(learner.history.accuracy) == 2


def test_what_is_missing_is_one_sentence(encoder, data, tmp_path):
    for more, sentence in (
        (("--model.network.init_args.folder", "no/such"), "no/such', which is no folder"),
        (("--model.network.init_args.target_modules", "[q_proj]"), "has no such linear layers"),
        (("--data.benchmark.init_args.root", tmp_path), "CLINC150: no clinc150.json or data_full.json in"),
    ):
        status, out, err = fit(encoder, data, "--run_dir", tmp_path / "run", *more)
        assert status != 0 and sentence in err and err.count("\n") == 1 and "Traceback" not in err
        assert not (tmp_path / "run").exists()
