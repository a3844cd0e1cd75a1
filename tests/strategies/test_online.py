"""One pass over streams of tiny experiences, with, without and regardless of task boundaries."""

import pytest
import torch
from avalanche.benchmarks.scenarios.online import split_continuous_linear_decay_stream, split_online_stream
from avalanche.training.supervised import Naive
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVON
from bayesdual.memory import random_selection
from bayesdual.strategies import BayesDualPlugin, BayesDualStrategy, load_checkpoint, save_checkpoint
from bayesdual.stream import TensorData
from tests.avalanche_streams import benchmark, growing_mlp, mlp, pieces

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def strategy(model=None, memory_size=40, **kwargs):
    torch.manual_seed(0)
    model = model or mlp()
    optimizer = IVON(model.parameters(), lr=0.3, ess=1000, hess_init=0.1, betas=(0.9, 0.999))
    return BayesDualStrategy(
        model=model,
        algorithm=BayesDual(memory_size),
        optimizer=optimizer,
        train_mb_size=10,
        eval_mb_size=100,
        evaluator=None,
        **kwargs,
    )


def accuracy_of(model, stream):
    model.eval()
    pairs = [item for experience in stream for item in experience.dataset]
    x = torch.stack([item[0] for item in pairs])
    return (model(x).argmax(1) == torch.tensor([int(item[1]) for item in pairs])).float().mean()


def blurry_rows(n_per_class=20, size=5):
    """Rows of the clusters in pieces: classes come up one after the other, but mixed with their neighbours."""
    y = torch.arange(10).repeat_interleave(n_per_class)
    order = (y + 1.5 * torch.randn(len(y), generator=torch.Generator().manual_seed(0))).argsort()
    return order.split(size)


def check_fair(memory, memory_size, n_per_class):
    kept = memory.exemplars
    assert kept.y.bincount(minlength=10).tolist() == [memory_size // 10] * 10
    assert memory.examples_seen == 10 * n_per_class
    for c in range(10):
        assert kept.weights[kept.y == c].sum() == pytest.approx(n_per_class), (
            "each class stands for what was seen of it"
        )


@pytest.mark.parametrize("boundaries, model", [(False, mlp), (True, mlp), (True, growing_mlp)])
def test_avalanche_s_online_stream_is_learned_in_one_pass(boundaries, model):
    stream = benchmark(n_per_class=60)
    made = strategy(model())
    sizes = []
    online = split_online_stream(stream.train_stream, 5, access_task_boundaries=boundaries, seed=0)
    for piece in online:
        made.train(piece, eval_streams=[])
        sizes.append(len(made.algorithm.memory))
    assert made.clock.train_exp_counter == len(sizes) == made.clock.train_iterations == 120
    assert sizes[0] == 5 and sizes[7:] == [40] * len(sizes[7:]), "updated as data arrives, and always full"
    check_fair(made.algorithm.memory, 40, 60)
    assert {e for _, e in made.algorithm.memory.counts} == (set(range(5)) if boundaries else {0})
    assert accuracy_of(made.model, stream.test_stream) > 0.6


def test_avalanche_s_stream_that_blurs_into_the_next_classes():
    torch.manual_seed(0)
    stream = benchmark(n_per_class=60)
    online = split_continuous_linear_decay_stream(
        stream.train_stream, experience_size=10, iters_per_virtual_epoch=24, beta=4, shuffle=True
    )
    made = strategy()
    for piece in online:
        made.train(piece, eval_streams=[])
    memory = made.algorithm.memory
    assert memory.examples_seen == 1200 and memory.exemplars.y.bincount().tolist() == [4] * 10
    assert accuracy_of(made.model, stream.test_stream) > 0.6


def test_a_blurry_stream_of_plain_experiences_is_task_free_if_told_so():
    stream = pieces(blurry_rows(60), 60)
    made = strategy(task_free=True)
    made.train(stream, eval_streams=[])
    assert len(stream) == 120 == made.clock.train_exp_counter
    check_fair(made.algorithm.memory, 40, 60)
    assert made.algorithm.memory.counts.keys() == {(c, 0) for c in range(10)}
    assert accuracy_of(made.model, benchmark().test_stream) > 0.6


def test_the_memory_is_a_uniform_sample_of_each_class_s_past():
    """Where in the stream an example came does not matter: its chance is its class's share over its class's number."""
    memory_size, n, runs = 20, 40, 40
    rows = torch.arange(2 * n).view(2, n).T.reshape(-1).split(4)  # classes 0 and 1 in turn
    kept = torch.zeros(2 * n)
    x = torch.zeros(2 * n, 6)
    x[:, 0] = torch.arange(2 * n)
    y = (torch.arange(2 * n) >= n).long()
    module = nn.Linear(6, 2)
    for run in range(runs):
        torch.manual_seed(run)
        algorithm = BayesDual(memory_size, selection=random_selection, weight_prior=None)
        for r in rows:
            data = TensorData(x[r], y[r], torch.zeros_like(r), r)
            algorithm.begin_experience(data)
            algorithm.end_experience(module, lambda x, t: module(x), data, 0)
        kept += torch.bincount(algorithm.memory.exemplars.index, minlength=2 * n)
    assert kept.sum() == memory_size * runs
    chance = memory_size / (2 * n)
    thirds = kept.view(2, 4, n // 4).sum((0, 2)) / (runs * n / 2)  # by when they came
    deviation = (chance * (1 - chance) / (runs * n / 2)) ** 0.5
    assert (thirds - chance).abs().max() < 4 * deviation, thirds


def test_without_a_memory_one_pass_forgets():
    stream = benchmark(n_per_class=60)
    made = strategy(memory_size=0)
    for piece in split_online_stream(stream.train_stream, 5, seed=0):
        made.train(piece, eval_streams=[])
    assert accuracy_of(made.model, stream.test_stream) < 0.4


def test_an_online_run_is_resumed_between_pieces(tmp_path):
    stream, path = pieces(blurry_rows()), tmp_path / "strategy.pt"
    whole = strategy(task_free=True)
    whole.train(stream, eval_streams=[])
    part = strategy(task_free=True)
    part.train(stream[:17], eval_streams=[])
    save_checkpoint(part, path)
    torch.manual_seed(5)
    resumed = strategy(mlp(), task_free=True)
    resumed.train(stream[load_checkpoint(resumed, path) :], eval_streams=[])
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))
    ours, theirs = resumed.algorithm.memory.exemplars, whole.algorithm.memory.exemplars
    assert torch.equal(ours.x, theirs.x) and torch.equal(ours.weights, theirs.weights)


def test_the_plugin_learns_online_too():
    stream, model = benchmark(n_per_class=60), mlp()
    plugin = BayesDualPlugin(BayesDual(40))
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    made = Naive(model=model, optimizer=adam, train_mb_size=5, plugins=[plugin], evaluator=None)
    for piece in split_online_stream(stream.train_stream, 5, seed=0):
        made.train(piece, eval_streams=[])
    check_fair(plugin.algorithm.memory, 40, 60)
    assert accuracy_of(model, stream.test_stream) > 0.6
