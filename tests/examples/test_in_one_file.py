"""The reader's edition against the package: each piece on the same inputs and draws, and the accuracy of both."""

import importlib.util
import logging
from pathlib import Path
from statistics import mean

import pytest
import torch
from lightning import Callback, Trainer

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVONByRule, ivon_settings
from bayesdual.kprior import KroneckerPrior, factors, function_space_loss
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.memory import Candidates, cell_means, dual_coverage, fair_shares
from bayesdual.models import MLP
from bayesdual.scenarios import SplitDigits
from bayesdual.stream import normalise

FILE = Path(__file__).parents[2] / "examples" / "in_one_file.py"
EXPERIENCES = 3  # that the memory and the prior are compared over


@pytest.fixture(scope="module")
def ours():
    spec = importlib.util.spec_from_file_location("in_one_file", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def networks(ours, seed=0):
    """The same network twice: the reader's, and the package's with its function of inputs and task labels."""
    torch.manual_seed(seed)
    mine, theirs = ours.MLP(), MLP(64)
    move(mine, theirs, 0.1, seed)  # as if it had learned something
    data = SplitDigits().train_stream[0].tensors()
    return mine, theirs, lambda x, t: theirs(normalise(x, data.mean, data.std))


def copy(mine, theirs):
    with torch.no_grad():
        for a, b in zip(theirs.parameters(), mine.parameters(), strict=True):
            a.copy_(b)


def move(mine, theirs, by, seed):
    """Changes the weights of both, as learning would."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in mine.parameters():
            p.add_(by * torch.randn_like(p))
    copy(mine, theirs)


def test_it_is_short_and_alone():
    text = FILE.read_text()
    assert len(text.splitlines()) <= 300
    lines = [line.split() for line in text.splitlines()]
    imported = {line[1].partition(".")[0] for line in lines if line and line[0] in ("import", "from")}
    assert imported == {"argparse", "math", "torch", "sklearn"}


def test_the_stream_and_the_network(ours):
    benchmark = SplitDigits()
    x, y, test_x, test_y = ours.digits()
    for i in range(5):
        for stream, (all_x, all_y) in (("train", (x, y)), ("test", (test_x, test_y))):
            data = getattr(benchmark, f"{stream}_stream")[i].tensors()
            assert torch.equal(data.x.flatten(1), all_x[all_y // 2 == i])
            assert torch.equal(data.y, all_y[all_y // 2 == i])
    mine, _, predict = networks(ours)
    data = benchmark.test_stream[0].tensors()
    assert torch.allclose(mine(data.x.flatten(1)), predict(data.x, data.tasks), atol=1e-6)


def test_ivon_makes_the_same_steps_with_the_same_noise(ours):
    torch.manual_seed(0)
    start = [torch.randn(5, 3, dtype=torch.double), torch.randn(4, dtype=torch.double)]
    params, copies = ([torch.nn.Parameter(p.clone()) for p in start] for _ in range(2))
    theirs = IVONByRule().make(params, examples=30, steps=4)
    mine = ours.IVON(copies, **ours.settings_by_rule(19, 30, 4))
    assert mine.lr == theirs.param_groups[0]["lr"] == 0.75 < ours.settings_by_rule(10**6, 30, 400)["lr"] * 7
    for size in (0.1, 0.1, 100.0, 0.1):  # the third gradient is longer than max_norm
        with theirs.sampled_params(train=True):
            eps = [p.detach() - c.detach() for p, c in zip(params, copies, strict=True)]
            for p in params:
                p.grad = size * torch.randn_like(p)
        theirs.step()
        mine.step(eps, [p.grad for p in params], mine.lr)
        for p, c, h in zip(params, copies, mine.hess, strict=True):
            assert torch.allclose(p, c, rtol=1e-9, atol=1e-9)
            assert torch.allclose(theirs.precision()[p], 30 * (h + 1e-4), rtol=1e-9)
    noise = [torch.randn(h.shape, generator=source) for source in [generator()] for h in mine.hess]
    for e, n, p in zip(mine.sample(generator()), noise, params, strict=True):
        assert torch.allclose(e, n / theirs.precision()[p].sqrt(), rtol=1e-9)


def test_the_rule(ours):
    for size in ((85_002, 287.0, 450.0), (10**6, 12_000, 3000)):
        assert ours.settings_by_rule(*size) == pytest.approx(ivon_settings(*size), rel=1e-12)


def test_selection_and_memory_vectors(ours):
    torch.manual_seed(0)
    logits, features = torch.randn(80, 10), torch.randn(80, 20).relu()
    candidates = Candidates(features, logits, torch.ones(80))
    source = generator()
    chosen = ours.one_of_each_cluster(ours.dual_features(logits, features, source), 12, source)
    assert torch.equal(chosen, dual_coverage(candidates, 12, generator())[0])
    x, weights = torch.randint(256, (80, 64), dtype=torch.uint8), torch.rand(80) + 0.5
    means, totals, left_out = ours.cell_means(x, weights, 12)
    theirs = cell_means(x, weights, 12)
    assert torch.equal(means, theirs.x) and torch.allclose(totals, theirs.weights, rtol=1e-6)
    assert torch.allclose(left_out, theirs.deviations, rtol=1e-5, atol=1e-4)  # grey levels of 0 to 255
    for available, budget in (([50, 50], 100), ([9] * 7, 40), ([3, 40, 1, 40], 50), ([5, 5], 100)):
        assert ours.fair_shares(available, budget) == fair_shares(available, budget)


def test_experiences_end_alike_and_steps_have_the_same_loss(ours, monkeypatch):
    """The memory, its spread and soft labels, the prior, and the loss of a step, after each of some experiences."""
    monkeypatch.setattr("bayesdual.kprior.kronecker.OVERSAMPLING", 1000)  # exact eigenvectors
    mine, net, predict = networks(ours)
    algorithm = BayesDual(memory_size=100, replay_batch_size=128, temperature=3.0, weight_prior=KroneckerPrior())
    source = generator()
    algorithm.load_state_dict({**algorithm.state_dict(), "generator": source.get_state()})
    memory, prior = ours.Memory(100), ours.KroneckerPrior()
    for i, experience in enumerate(SplitDigits().train_stream[:EXPERIENCES]):
        data = experience.tensors()
        algorithm.begin_experience(data)
        x, batch = data.x.flatten(1), torch.arange(32)
        loss = ours.loss_of_step(mine, x[batch], data.y[batch], len(data), memory, prior, source)
        want, parts = algorithm.loss(net, predict, data.x[batch], data.y[batch], data.tasks[batch])
        assert loss.item() == pytest.approx(want.item(), rel=1e-6)
        assert set(parts) == ({"new", "labels", "function_space", "weight_space"} if i else {"new"})
        gradient, wanted = (torch.autograd.grad(v, list(n.parameters())) for v, n in ((loss, mine), (want, net)))
        for g, w in zip(gradient, wanted, strict=True):
            assert torch.allclose(g, w, rtol=1e-5, atol=1e-5 * w.abs().max())
        with torch.no_grad():
            memory.take_in(x, data.y, mine, source)
            prior.take_in(mine, x, source)
        algorithm.end_experience(net, predict, data, i)
        z = algorithm.memory.exemplars
        assert torch.equal(memory.x, z.x.flatten(1)) and torch.equal(memory.y, z.y)
        assert torch.allclose(memory.w, z.weights, rtol=1e-6)
        assert torch.allclose(memory.soft, z.logits, atol=1e-5)
        assert memory.seen == algorithm.memory.examples_seen
        kept = algorithm.weight_prior.state_dict()["factors"].values()
        for (A, G), pair in zip(prior.factors, kept, strict=True):
            assert torch.allclose(A, pair["inputs"], rtol=1e-5, atol=1e-6)
            assert torch.allclose(G, pair["outputs"], rtol=1e-5, atol=1e-6)
        move(mine, net, 0.02, seed=i)
        assert all(0 < (curvature == 5).float().mean() < 1 for _, _, curvature, _ in prior.anchors)  # the cap
        held = prior.loss(mine).item()
        assert held == pytest.approx(algorithm.weight_prior.loss(net).item(), rel=1e-5)
        assert held > 0.01


def test_factors_and_soft_labels_from_the_same_draws(ours):
    mine, net, predict = networks(ours)
    data = SplitDigits().train_stream[1].tensors()
    theirs = factors(net, predict, data.x, data.tasks, 3.0, generator())
    for (A, G), pair in zip(ours.kronecker_factors(mine, data.x.flatten(1), generator()), theirs.values(), strict=True):
        assert torch.allclose(A, pair["inputs"], atol=1e-6) and torch.allclose(G, pair["outputs"], atol=1e-6)
    torch.manual_seed(1)
    now, before = 4 * torch.randn(50, 10), 4 * torch.randn(50, 10)
    want = function_space_loss(now, before, torch.ones(50), 3.0)
    assert ours.function_space(now, before).item() == pytest.approx(want.item(), rel=1e-6)


class Rates(Callback):
    """The learning rate of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *args):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_both_have_the_same_learning_rates_and_are_as_accurate(ours, monkeypatch, capsys):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    step, mine, theirs = ours.IVON.step, [], Rates()
    monkeypatch.setattr(ours.IVON, "step", lambda self, eps, grads, lr: (mine.append(lr), step(self, eps, grads, lr)))
    accuracies = {"file": [], "package": []}
    for seed in range(2):
        accuracies["file"].append(mean(ours.learn(epochs=3, seed=seed)[-1]))
        torch.manual_seed(seed)
        method = BayesDual(memory_size=100, replay_batch_size=128, temperature=3.0, weight_prior=KroneckerPrior())
        learner, stream = Learner(MLP(64), method), StreamDataModule(SplitDigits, epochs=3, batch_size=32)
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        trainer = Trainer(max_epochs=-1, accelerator="cpu", callbacks=theirs, **dict.fromkeys(off, False))
        trainer.fit(learner, stream)
        accuracies["package"].append(learner.history.results()["average_accuracy"])
    assert mine == pytest.approx(theirs.seen, rel=1e-9)
    assert capsys.readouterr().out.count("after experience 5: ") == 2
    # Measured over 6 seeds: .898 and .891, with a standard deviation of .015 each.
    assert mean(accuracies["file"]) > 0.85
    assert abs(mean(accuracies["file"]) - mean(accuracies["package"])) < 0.04
