"""Checkpoints of Avalanche strategies: a resumed run is the run that was not stopped."""

import pytest
import torch
from avalanche.training.plugins import LwFPlugin
from avalanche.training.supervised import Naive
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVON
from bayesdual.kprior import DiagonalPrior, KroneckerPrior
from bayesdual.memory import IMPOSSIBLE
from bayesdual.strategies import BayesDualStrategy, load_checkpoint, save_checkpoint
from tests.avalanche_streams import MultiHead, benchmark, growing_mlp, mlp

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ivon(parameters):
    return IVON(parameters, lr=0.1, ess=2000, hess_init=0.1, betas=(0.9, 0.999))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


optimizers = {"ivon": ivon, "by the rule": None, "adam": torch.optim.Adam, "sgd": sgd}


def make(model=mlp, optimizer=ivon, seed=0, plugins=(), **algorithm):
    network = model()
    torch.manual_seed(seed)
    return BayesDualStrategy(
        model=network,
        algorithm=BayesDual(**{"memory_size": 20, **algorithm}),
        optimizer=None if optimizer is None else optimizer(network.parameters()),
        train_mb_size=16,
        train_epochs=2,
        eval_mb_size=64,
        plugins=plugins,
        evaluator=None,
    )


def learn(strategy, stream, path=None, stop=None):
    """Trains and evaluates, as people do; evaluation lets heads grow for what is still to come."""
    for i, experience in enumerate(stream.train_stream[strategy.clock.train_exp_counter :]):
        strategy.train(experience, eval_streams=[])
        strategy.eval(stream.test_stream)
        if i + 1 == stop:
            return save_checkpoint(strategy, path)


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("optimizer", optimizers.values(), ids=optimizers)
@pytest.mark.parametrize("model", [mlp, growing_mlp, MultiHead], ids=["one head", "growing", "multi-head"])
def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path, model, optimizer, stop):
    stream, path = benchmark(task_labels=model is MultiHead), tmp_path / "strategy.pt"
    whole = make(model, optimizer)
    learn(whole, stream)
    learn(make(model, optimizer), stream, path, stop)

    torch.manual_seed(99)  # what a new process draws must not matter
    resumed = make(model, optimizer, seed=5)
    assert load_checkpoint(resumed, path) == stop
    learn(resumed, stream)

    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    for name, tensor in whole.algorithm.memory.exemplars.tensors().items():
        assert torch.equal(tensor, getattr(resumed.algorithm.memory.exemplars, name)), name
    assert resumed.clock.train_iterations == whole.clock.train_iterations
    parts = zip(resumed.optimizer.param_groups[0]["params"], whole.optimizer.param_groups[0]["params"], strict=True)
    for a, b in parts:
        assert resumed.optimizer.state[a].keys() == whole.optimizer.state[b].keys()
        for key, value in whole.optimizer.state[b].items():
            assert torch.equal(torch.as_tensor(resumed.optimizer.state[a][key]), torch.as_tensor(value)), key
    assert [p.name for p in tmp_path.iterdir()] == ["strategy.pt"]


def test_the_prior_of_the_weights_and_a_naive_strategy_are_resumed_too(tmp_path):
    stream, path = benchmark(), tmp_path / "strategy.pt"
    whole = make(weight_prior=KroneckerPrior(strength=1.0))
    learn(whole, stream)
    learn(make(weight_prior=KroneckerPrior(strength=1.0)), stream, path, 2)
    resumed = make(weight_prior=KroneckerPrior(strength=1.0), seed=5)
    load_checkpoint(resumed, path)
    learn(resumed, stream)
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))

    model = mlp()
    plain = Naive(model=model, optimizer=sgd(model.parameters()), evaluator=None)
    save_checkpoint(plain, path)  # before it has learned anything
    assert load_checkpoint(plain, path) == 0


def test_the_file_loads_without_executing_code(tmp_path):
    learn(make(), benchmark(), tmp_path / "strategy.pt", 2)
    state = torch.load(tmp_path / "strategy.pt", weights_only=True)
    exemplars = state["plugins"][0]["algorithm"]["memory"]["exemplars"]
    assert len(exemplars["y"]) == 20 and float(exemplars["logits"].min()) > IMPOSSIBLE


class SavesInside(LwFPlugin):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def after_training_exp(self, strategy, **kwargs):
        save_checkpoint(strategy, self.path)


@pytest.mark.parametrize(
    "other, sentence",
    [
        (lambda: make(lambda: mlp(nn.Linear(20, 11))), "of another model: 2.bias"),
        (lambda: make(optimizer=torch.optim.Adam), "of IVON with 1 parameter groups"),
        (lambda: make(memory_size=21), "holds 20 examples but memory_size is 21"),
        (lambda: make(weight_prior=None), "with a prior of the weights: give its algorithm.weight_prior"),
        (lambda: make(weight_prior=DiagonalPrior()), "with another prior of the weights"),
        (lambda: naive(), "states of 1 plugins and the strategy has 0"),
    ],
)
def test_a_strategy_made_otherwise_is_refused_in_a_sentence(tmp_path, other, sentence):
    learn(make(), benchmark(), tmp_path / "strategy.pt", 1)
    with pytest.raises(ValueError, match=sentence):
        load_checkpoint(other(), tmp_path / "strategy.pt")


def naive():
    model = mlp()
    return Naive(model=model, optimizer=ivon(model.parameters()), evaluator=None)


def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "strategy.pt"
    with pytest.raises(FileNotFoundError):
        load_checkpoint(make(), path)
    for content in (b"", b"no checkpoint at all"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a checkpoint of a strategy"):
            load_checkpoint(make(), path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="was not written by save_checkpoint"):
        load_checkpoint(make(), path)


def test_what_cannot_be_saved_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "strategy.pt"
    with pytest.raises(ValueError, match="LwFPlugin has no state_dict"):
        save_checkpoint(make(plugins=[LwFPlugin()]), path)
    with pytest.raises(ValueError, match="in the middle of an experience"):
        make(plugins=[SavesInside(path)]).train(benchmark().train_stream[0])
    assert not list(tmp_path.iterdir())
