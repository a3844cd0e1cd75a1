"""The Lightning host: one fit for the stream, all kinds of streams, and resume to the bit."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.inspection import RunReport
from bayesdual.ivon import IVON
from bayesdual.kprior import KroneckerPrior
from bayesdual.learner import Learner, StreamCheckpoint, StreamDataModule
from bayesdual.memory import Memory
from bayesdual.models import MLP, ResNet18
from bayesdual.posterior import Posterior
from bayesdual.stream import TensorData, TensorLoader
from tests.streams import blobs

ivon = partial(IVON, lr=0.2, ess=80, hess_init=0.5)
adam = partial(torch.optim.Adam, lr=5e-3)


def learner(network=None, optimizer=ivon, seed=0, **algorithm):
    torch.manual_seed(seed)
    network = network or nn.Sequential(MLP(16, (32,), 6))
    settings = {"memory_size": 12, "replay_batch_size": 16, **algorithm}
    return Learner(network, BayesDual(**settings), optimizer, lr_end=0.1)


def fit(model, stream, directory, max_epochs=-1, ckpt_path=None, **kwargs):
    data = StreamDataModule(stream, epochs=kwargs.pop("epochs", 2), batch_size=16, workers=kwargs.pop("workers", 0))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StreamCheckpoint(directory / "checkpoints"), RunReport(directory)],
        **kwargs,
    )
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    results = directory / "results.json"  # not there before an experience has ended
    return json.loads(results.read_text()) if results.exists() else None


def without_seconds(results):
    return {k: v for k, v in results.items() if not k.startswith("seconds")}


def test_learns_without_forgetting_and_leaves_results(tmp_path):
    results = fit(learner(), blobs(), tmp_path, epochs=16)
    assert results["average_accuracy"] > 0.8
    assert results["memory_size"] == 12 == len(Memory.load(tmp_path / "memory.safetensors"))
    assert len(results["accuracy_matrix"]) == 3 and len(results["accuracy_matrix"][0]) == 3
    assert results["seconds_total"] > results["seconds_training"] > 0
    assert -1 <= results["forward_transfer"] <= 1
    names = {p.name for p in tmp_path.rglob("*")}
    assert {"last.ckpt", "experience_1.ckpt", "experience_3.ckpt", "accuracy_matrix.png", "memory.png"} <= names


def test_replay_is_what_keeps_the_past(tmp_path):
    """Without a prior of the weights, which alone keeps blobs."""
    naive = fit(learner(memory_size=0, weight_prior=None), blobs(), tmp_path / "naive", epochs=16)
    replay = fit(learner(memory_size=6, weight_prior=None), blobs(), tmp_path / "replay", epochs=16)
    assert naive["average_accuracy"] < 0.5 and replay["average_accuracy"] > 0.8


STOPS = [*((ivon, stop) for stop in range(1, 6)), (adam, 2), (adam, 3)]


@pytest.fixture(scope="module")
def not_stopped():
    """Runs that were not stopped: the learner and its results, by optimizer."""
    return {}


@pytest.mark.parametrize(
    ("optimizer", "stop"), STOPS, ids=[f"{'adam' if optimizer is adam else 'ivon'}-{stop}" for optimizer, stop in STOPS]
)
def test_a_run_stopped_at_any_epoch_end_resumes_to_the_bit(tmp_path, stop, optimizer, not_stopped):
    """Three experiences of two epochs: stops 2 and 4 are boundaries between experiences."""
    network = lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 6))  # noqa: E731
    if optimizer not in not_stopped:
        torch.manual_seed(0)
        whole = learner(network(), optimizer, weight_prior=KroneckerPrior())
        not_stopped[optimizer] = whole, fit(whole, blobs(), tmp_path / "whole")
    whole, expected = not_stopped[optimizer]

    torch.manual_seed(0)
    fit(learner(network(), optimizer, weight_prior=KroneckerPrior()), blobs(), tmp_path / "parts", max_epochs=stop)
    torch.manual_seed(123)  # what a new process draws must not matter
    resumed = learner(network(), optimizer, seed=5, weight_prior=KroneckerPrior())
    results = fit(resumed, blobs(), tmp_path / "parts", ckpt_path=tmp_path / "parts/checkpoints/last.ckpt")

    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    ours, theirs = resumed.algorithm.memory.exemplars, whole.algorithm.memory.exemplars
    for name, tensor in theirs.tensors().items():
        assert torch.equal(tensor, getattr(ours, name)), name
    results["seed"] = expected["seed"]
    assert without_seconds(results) == without_seconds(expected)
    assert results["seconds_total"] > 0


def test_a_finished_run_resumed_says_the_same_again(tmp_path):
    first = fit(learner(), blobs(), tmp_path)
    again = fit(learner(), blobs(), tmp_path, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert without_seconds(again) == without_seconds(first)


def test_every_run_leaves_the_posterior_of_all_its_data(tmp_path, capsys):
    model = learner()
    fit(model, blobs(), tmp_path)
    posterior = Posterior.load(tmp_path / "posterior.safetensors", model.network)
    assert posterior.curvature.keys() == dict(model.network.named_parameters()).keys()
    assert all(torch.equal(posterior.mean[n], p) for n, p in model.network.named_parameters())
    assert float(posterior.last_layer.weights.sum()) == pytest.approx(3 * 80)  # examples of three experiences
    saved = torch.load(tmp_path / "checkpoints/experience_1.ckpt", weights_only=True)["bayesdual"]["algorithm"]
    assert float(saved["posterior"]["last_layer"]["weights"].sum()) == pytest.approx(80)
    assert "left no mark" not in capsys.readouterr().out


def test_without_a_memory_a_run_leaves_the_optimizers_posterior(tmp_path):
    model = learner(memory_size=0)
    fit(model, blobs(), tmp_path)
    posterior = Posterior.load(tmp_path / "posterior.safetensors", model.network)
    assert posterior.last_layer is None and posterior.prior_precision == 0
    fit(learner(memory_size=0, optimizer=adam), blobs(), tmp_path / "adam")
    assert not (tmp_path / "adam/posterior.safetensors").exists()


def test_a_posterior_without_a_mark_is_said(tmp_path, capsys):
    model = learner(network=Sure())
    fit(model, blobs(), tmp_path)
    assert capsys.readouterr().out.count("the data have left no mark on the posterior") == 1


class Sure(MLP):
    """Whatever its weights, about the same is said."""

    def __init__(self):
        super().__init__(16, (8,), 6)

    def forward(self, x):
        return 1e-4 * super().forward(x)


@pytest.mark.parametrize("prediction", ["samples", "linearised", "weight_samples"])
def test_evaluations_predict_by_the_posterior_and_a_checkpoint_says_the_same(tmp_path, prediction):
    by_mean = fit(learner(), blobs(), tmp_path / "mean")
    results = fit(by(prediction), blobs(), tmp_path / "run")
    assert results["nll"] != by_mean["nll"]
    assert Posterior.load(tmp_path / "run/posterior.safetensors").mean.keys()  # the same weights were learned
    a, b = (Posterior.load(tmp_path / place / "posterior.safetensors") for place in ("mean", "run"))
    assert all(torch.equal(a.mean[n], b.mean[n]) and torch.equal(a.curvature[n], b.curvature[n]) for n in a.mean)
    model = by(prediction)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    data = StreamDataModule(blobs(), batch_size=16)
    trainer.test(model, data, ckpt_path=tmp_path / "run/checkpoints/last.ckpt", weights_only=True, verbose=False)
    assert model.latest_evaluation["nll"] == pytest.approx(results["nll"], rel=1e-5)


def test_samples_of_weights_need_an_optimizer_that_learns_their_posterior(tmp_path):
    given = learner()
    model = Learner(given.network, given.algorithm, torch.optim.Adam, prediction="weight_samples")
    with pytest.raises(ValueError, match="weight_samples, which needs the posterior that IVON learns: give model.opt"):
        fit(model, blobs(), tmp_path)
    assert not model.algorithm.memory.counts and not model.history.accuracy


def test_a_budget_in_bytes_that_is_too_small_for_the_whole_stream_says_so_before_it_learns(tmp_path):
    model = learner(memory_size=None, memory_bytes=150)  # enough for the two classes of an experience
    with pytest.raises(
        ValueError, match=r"memory_bytes is 150, and one exemplar for each of the 6 .* takes 2\d\d: give"
    ):
        fit(model, blobs(), tmp_path)
    assert not model.algorithm.memory.counts and not model.history.accuracy


def by(prediction, **settings):
    torch.manual_seed(0)
    algorithm_of = learner(**settings)
    return Learner(algorithm_of.network, algorithm_of.algorithm, ivon, lr_end=0.1, prediction=prediction)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": Sure()}, "logits are the output of one linear layer, and model.network's are not"),
        ({"network": MLP(16, (2000,), 6)}, "12006 weights, and covariances are computed of at most 8192"),
        ({"memory_size": 0}, "needs the posterior of all data, which is measured on the memory"),
    ],
)
def test_what_has_no_posterior_of_its_last_layer_says_so_before_it_learns(tmp_path, settings, message):
    model = by("linearised", **settings)
    with pytest.raises(ValueError, match=message):
        fit(model, blobs(), tmp_path)
    assert not model.algorithm.memory.counts and not model.history.accuracy


def test_task_labels_mask_the_head(tmp_path):
    model = learner(memory_size=0)
    results = fit(model, blobs(task_labels=True), tmp_path, epochs=16)
    logits = model(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]))
    assert logits.argmax(1).tolist()[0] in (0, 1) and logits.argmax(1).tolist()[1] in (4, 5)
    assert results["average_accuracy"] > 0.8  # without memory: two classes a task cannot be confused with others


class TwoHeads(nn.Module):
    """A head for each task, in the manner of Avalanche's multi-task modules."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(16, 16)
        self.heads = nn.ModuleList()

    def adaptation(self, experience):
        self.heads.append(nn.Linear(16, 6))

    def forward(self, x, task_labels):
        h = self.body(x.flatten(1)).relu()
        return torch.stack([self.heads[t](v) for v, t in zip(h, task_labels.tolist(), strict=True)])


def test_growing_heads_are_grown_before_the_optimizer_is_made(tmp_path):
    class Benchmark:
        train_stream = blobs(task_labels=True).train_stream
        test_stream = blobs(task_labels=True).test_stream

    model = learner(TwoHeads(), memory_size=6)
    fit(model, Benchmark, tmp_path)
    assert len(model.network.heads) == 3
    assert not torch.equal(model.network.heads[2].weight, torch.zeros(6, 16))


def test_domain_incremental_streams_share_the_memory_over_experiences(tmp_path):
    from bayesdual.scenarios import RotatedDigits

    model = learner(MLP(64, (32,), 10), memory_size=40)
    results = fit(model, RotatedDigits(n_experiences=2), tmp_path, epochs=4)
    kept = model.algorithm.memory.exemplars
    assert [int((kept.experience == e).sum()) for e in (0, 1)] == [20, 20]
    assert results["average_accuracy"] > 0.8


def test_a_dataset_without_tensors_is_read_through_a_loader(tmp_path):
    """Any Avalanche benchmark: here the same data as SplitDigits, without its short cut."""
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline

    from bayesdual.scenarios import SplitDigits

    source = SplitDigits(n_experiences=2)
    plain = benchmark_from_datasets(
        train=[e.dataset for e in source.train_stream], test=[e.dataset for e in source.test_stream]
    )
    model = learner(MLP(64, (32,), 10), memory_size=20)
    results = fit(model, with_classes_timeline(plain), tmp_path, epochs=5)
    assert model.algorithm.memory.exemplars.x.dtype == torch.float32
    assert results["average_accuracy"] > 0.7


def test_batch_norm_and_a_memory_smaller_than_the_batch(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 6))
    results = fit(learner(network, memory_size=6, replay_batch_size=64), blobs(), tmp_path, epochs=16)
    assert results["average_accuracy"] > 0.6


@pytest.mark.parametrize("optimizer", [ivon, adam], ids=["ivon", "adam"])
def test_gradients_may_be_accumulated_and_clipped(tmp_path, optimizer):
    results = fit(
        learner(optimizer=optimizer), blobs(), tmp_path, epochs=32, accumulate_grad_batches=2, gradient_clip_val=10.0
    )
    assert results["average_accuracy"] > 0.8


def test_resnet_learns(tmp_path):
    network = ResNet18(channels=1, n_classes=6, width=4)
    fit(learner(network, memory_size=6), blobs(n=8), tmp_path, epochs=1)


def test_clear_refusals(tmp_path):
    with pytest.raises(ValueError, match="4 logits but data.benchmark has 6 classes"):
        fit(learner(MLP(16, (8,), 4)), blobs(), tmp_path)
    with pytest.raises(ValueError, match="max_epochs is 0"):
        fit(learner(), blobs(), tmp_path, max_epochs=0)
    with pytest.raises(ValueError, match="middle of an epoch"):
        fit(learner(), blobs(), tmp_path, max_steps=3)
    with pytest.raises(ValueError, match="middle of an epoch"):
        fit(learner(), blobs(), tmp_path, max_time="00:00:00:01")
    with pytest.raises(ValueError, match="data.epochs is 0"):
        StreamDataModule(blobs, epochs=0)
    with pytest.raises(ValueError, match="stream 'valid'"):
        StreamDataModule(blobs, evaluate_on="valid").train_dataloader()
    with pytest.raises(FloatingPointError, match="loss became nan in experience 1, epoch 1"):
        fit(learner(optimizer=partial(torch.optim.SGD, lr=1e20)), blobs(), tmp_path)


def test_checkpoints_of_others_are_refused(tmp_path):
    fit(learner(), blobs(), tmp_path, max_epochs=1)
    last = tmp_path / "checkpoints/last.ckpt"
    before = last.read_bytes()
    with pytest.raises(ValueError, match="another model: network.0.1.bias has shape"):
        fit(learner(MLP(16, (8,), 6)), blobs(), tmp_path, ckpt_path=last)
    with pytest.raises(ValueError, match="another stream: sizes there are"):
        fit(learner(), blobs(n=20), tmp_path, ckpt_path=last)
    with pytest.raises(ValueError, match="memory_size"):
        fit(learner(memory_size=20), blobs(), tmp_path, ckpt_path=last)
    assert last.read_bytes() == before


class Divided(Learner):
    """Processes that start with random states of their own, and at the end compare what they hold."""

    def on_fit_start(self):
        self.algorithm._generator.manual_seed(self.global_rank)
        self.stream._shuffle_seed = self.global_rank
        super().on_fit_start()

    def on_train_end(self):
        super().on_train_end()
        held = {**self.algorithm.memory.exemplars.tensors(), **dict(self.network.named_parameters())}
        for name, tensor in held.items():
            tensors = self.all_gather(tensor.detach())
            assert torch.equal(tensors[0], tensors[1]), name


def test_two_processes_hold_the_same_and_count_every_example_once(tmp_path):
    """DDP over gloo."""
    model = learner()
    divided = Divided(model.network, model.algorithm, ivon, lr_end=0.1)
    results = fit(divided, blobs(n=41), tmp_path, epochs=32, devices=2, strategy="ddp_fork")
    assert results["average_accuracy"] > 0.8
    assert results["memory_size"] == 12
    assert all(abs(a * 82 - round(a * 82)) < 1e-6 for a in results["accuracy_matrix"][-1])


def fit_data(model, data):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", enable_checkpointing=False, **quiet).fit(model, datamodule=data)


def test_a_stream_that_was_learned_starts_again_for_another_learner():
    data = StreamDataModule(blobs(), epochs=2, batch_size=16)
    first, second = learner(), learner()
    fit_data(first, data)
    fit_data(second, data)
    assert second.algorithm.memory.counts == first.algorithm.memory.counts
    assert len(second.history.accuracy) == 3 and data.finished
    with pytest.raises(ValueError, match="this Learner has learned this StreamDataModule to its end"):
        fit_data(second, data)
    with pytest.raises(ValueError, match="this algorithm has learned a stream already: make a new one"):
        fit_data(Learner(MLP(16, (32,), 6), first.algorithm, ivon), data)


def test_modules_that_are_frozen_in_eval_mode_stay_so():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 6))
    network[2].eval()
    before = network[2].running_mean.clone()
    fit_data(learner(network), StreamDataModule(blobs(), epochs=1, batch_size=16))
    assert not network[2].training and torch.equal(network[2].running_mean, before)
    assert network[1].training


def relabelled(stream, name, place, y):
    """A stream in one experience of which the first label is another, or where there are no examples (None)."""
    experience = getattr(stream, name)[place]
    data = experience.tensors()
    labels = data.y[:0] if y is None else torch.cat([torch.tensor([y]), data.y[1:]])
    n = len(labels)
    data = replace(data, x=data.x[:n], y=labels, tasks=data.tasks[:n], index=data.index[:n])
    experience.tensors = lambda: data
    experience.classes_in_this_experience = labels.unique().tolist()
    return stream


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (relabelled(blobs(), "train_stream", 1, -100), "experience 2 of data.benchmark has the label -100"),
        (relabelled(blobs(), "train_stream", 1, None), "experience 2 of data.benchmark has no training examples"),
        (relabelled(blobs(), "test_stream", 1, 50), "'test' of data.benchmark has the label 50, but .* 0 to 5 apart"),
        (relabelled(blobs(), "test_stream", 1, -1), "'test' of data.benchmark has the label -1"),
        (relabelled(blobs(), "test_stream", 1, None), "experience 2 of the stream 'test' .* has no examples"),
        (SimpleNamespace(**vars(blobs()) | {"test_stream": blobs(2).test_stream}), "3 experiences to learn and 2 in"),
    ],
)
def test_streams_that_cannot_be_learned_or_evaluated_are_refused_at_the_start(stream, complaint):
    model = learner()
    with pytest.raises(ValueError, match=complaint):
        fit_data(model, StreamDataModule(stream, epochs=1, batch_size=16))
    assert not model.history.accuracy


@pytest.mark.parametrize("n", [1, 5, 8, 9])
def test_all_ranks_have_as_many_batches_however_few_examples_there_are(n):
    y = torch.arange(n)
    data = TensorData(y[:, None], y, 0 * y, y)
    ranks = [[b[1] for b in TensorLoader(data, 2, 0, rank, 4)] for rank in range(4)]
    assert len({len(batches) for batches in ranks}) == 1
    assert torch.equal(torch.cat([y for batches in ranks for y in batches]).unique(), y)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        (torch.tensor([0, 0]), torch.ones(2)),
        (torch.tensor([0, 99]), torch.ones(2)),
        (torch.tensor([-1]), torch.ones(1)),
        (torch.tensor([], dtype=torch.int64), torch.ones(0)),
        (torch.tensor([0, 1]), torch.tensor([1.0, float("nan")])),
        (torch.tensor([0, 1]), torch.tensor([1.0, 0.0])),
        (torch.tensor([0.0, 1.0]), torch.ones(2)),
        (torch.arange(9), torch.ones(9)),
    ],
)
def test_what_a_selection_of_ones_own_returns_is_looked_at(returned):
    model = learner(selection=lambda candidates, n, generator: returned)
    with pytest.raises(ValueError, match="algorithm.selection returned .* for 6 of 40 examples: it is to return"):
        fit_data(model, StreamDataModule(blobs(), epochs=1, batch_size=16))


@pytest.mark.parametrize("lr_end", [0.25, 1.0])
def test_the_learning_rate_falls_within_each_experience_to_a_share_of_what_it_was(lr_end):
    rates = []

    class Rates(Callback):
        def on_train_batch_end(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = Learner(MLP(16, (32,), 6), BayesDual(memory_size=12), ivon, lr_end=lr_end)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(accelerator="cpu", max_epochs=-1, callbacks=Rates(), **dict.fromkeys(quiet, False))
    trainer.fit(model, datamodule=StreamDataModule(blobs(2), epochs=2, batch_size=20))  # 4 steps in each of 2 epochs
    assert rates == pytest.approx([0.2 * (1 - (1 - lr_end) * k / 8) for k in range(8)] * 2)
