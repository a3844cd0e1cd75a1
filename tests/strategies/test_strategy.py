"""The Avalanche host: runs as Avalanche's own strategies do, and does what the Lightning host does."""

import inspect
import runpy
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.benchmarks.utils import as_avalanche_dataset, as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin, SupervisedPlugin
from avalanche.training.storage_policy import ParametricBuffer
from avalanche.training.supervised import Naive
from lightning import Trainer
from torch import nn
from torch.utils.data import TensorDataset

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVON, IVONByRule, ivon_settings
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.memory import selection
from bayesdual.models import MLP
from bayesdual.scenarios import RotatedDigits, SplitDigits
from bayesdual.strategies import BayesDualPlugin, BayesDualStrategy, SelectedExemplarsBuffer, SelectionStrategy
from tests.avalanche_streams import MultiHead, benchmark, clusters, growing_mlp, mlp, pieces
from tests.streams import Items

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The models are so small that several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ivon(model, **kwargs):
    return IVON(model.parameters(), **{"lr": 0.1, "ess": 2000, "hess_init": 0.1, "betas": (0.9, 0.999), **kwargs})


def adam(model, lr=2e-2):
    return torch.optim.Adam(model.parameters(), lr=lr)


def accuracy():
    return EvaluationPlugin(accuracy_metrics(stream=True))


def average(metrics):
    (value,) = [v for k, v in metrics.items() if k.startswith("Top1_Acc_Stream/eval")]
    return value


def split(memory_size, settings):
    """An algorithm of those settings that it takes, and the rest, which are the host's."""
    names = inspect.signature(BayesDual).parameters
    options = {name: value for name, value in settings.items() if name in names}
    host = {"train_mb_size": 16, "train_epochs": 2, "eval_mb_size": 64, "evaluator": None}
    return BayesDual(memory_size, **options), host | {k: v for k, v in settings.items() if k not in names}


def strategy(model, optimizer=adam, memory_size=20, **settings):
    algorithm, settings = split(memory_size, settings)
    return BayesDualStrategy(model=model, algorithm=algorithm, optimizer=optimizer(model), **settings)


def naive(model, optimizer=adam, memory_size=20, plugins=(), task_free=False, lr_end=0.0, **settings):
    """Naive with the plugin."""
    algorithm, settings = split(memory_size, settings)
    plugins = [BayesDualPlugin(algorithm, task_free, lr_end), *plugins]
    made = Naive(model=model, optimizer=optimizer(model), criterion=nn.CrossEntropyLoss(), plugins=plugins, **settings)
    made.algorithm = algorithm
    return made


both = pytest.mark.parametrize("host", [strategy, naive], ids=["strategy", "plugin"])
any_optimizer = pytest.mark.parametrize("optimizer", [adam, ivon])


# --------------------------------------------------------------------------------- it runs where Avalanche's run


def accuracy_of(model, stream, tasks=False):
    model.eval()
    right = []
    for experience in stream:
        x, y = (torch.stack([torch.as_tensor(item[i]) for item in experience.dataset]) for i in (0, 1))
        logits = model(x, torch.full_like(y, experience.task_label)) if tasks else model(x)
        right.append(logits.argmax(1) == y)
    return torch.cat(right).float().mean()


@both
@any_optimizer
@pytest.mark.parametrize("model", [mlp, growing_mlp, MultiHead], ids=["one head", "growing", "multi-head"])
def test_learns_a_stream_without_forgetting(host, optimizer, model):
    tasks = model is MultiHead
    stream = benchmark(task_labels=tasks)
    made = host(model(), optimizer, memory_size=40, train_epochs=15)
    made.train(stream.train_stream, eval_streams=[])
    assert accuracy_of(made.model, stream.test_stream, tasks) > 0.8
    assert made.algorithm.memory.exemplars.y.bincount().tolist() == [4] * 10


def test_it_is_the_memory_that_keeps_the_past():
    made, stream = strategy(mlp(), memory_size=0, weight_prior=None, train_epochs=15), benchmark()
    made.train(stream.train_stream, eval_streams=[])
    assert accuracy_of(made.model, stream.test_stream) < 0.5


@both
@pytest.mark.parametrize("task_labels", [False, True])
def test_eval_and_train_loops_of_a_task_aware_and_a_task_agnostic_stream(host, task_labels):
    stream = benchmark(task_labels)
    made = host(MultiHead() if task_labels else mlp(), evaluator=EvaluationPlugin(accuracy_metrics(stream=True)))
    made.train(stream.train_stream[0])
    metrics = made.train(stream.train_stream[1:3], eval_streams=[stream.test_stream])
    assert all(isinstance(v, float) for v in metrics.values())
    metrics = made.eval(stream.test_stream)
    model = MultiHead() if task_labels else mlp()
    plain = Naive(model=model, optimizer=adam(model), evaluator=EvaluationPlugin(accuracy_metrics(stream=True)))
    plain.train(stream.train_stream[:1])
    assert plain.eval(stream.test_stream).keys() <= metrics.keys()
    assert made.clock.train_exp_counter == 3 and made.algorithm.memory.examples_seen == 120


class Recorder(SupervisedPlugin):
    """Notes which of Avalanche's callbacks were called, in order."""

    def __init__(self):
        super().__init__()
        self.called = []


CALLBACKS = [name for name in dir(SupervisedPlugin) if name.startswith(("before_", "after_"))]
for _name in CALLBACKS:
    setattr(Recorder, _name, lambda self, strategy, _name=_name, **kwargs: self.called.append(_name))


@both
@any_optimizer
def test_every_callback_is_reached(host, optimizer):
    stream, recorder = benchmark(), Recorder()
    made = host(mlp(), optimizer, plugins=[recorder])
    made.train(stream.train_stream[0])
    made.eval(stream.test_stream[:1])
    assert len(CALLBACKS) == 26 and set(recorder.called) == set(CALLBACKS)


@both
@pytest.mark.parametrize(
    "eval_every, mode, evaluations", [(-1, "epoch", 0), (0, "epoch", 2), (1, "epoch", 3), (1, "iteration", 8)]
)
def test_periodic_evaluation_comes_as_often_as_asked_for(host, eval_every, mode, evaluations):
    """An experience of two epochs of three iterations; with evaluation comes one before training."""
    stream, recorder = benchmark(), Recorder()
    made = host(mlp(), ivon, plugins=[recorder], eval_every=eval_every, peval_mode=mode)
    made.train(stream.train_stream[0], eval_streams=[stream.test_stream[:1]])
    assert recorder.called.count("before_eval") == evaluations
    assert recorder.called.count("after_training_iteration") == 6


def test_plugins_and_criterion_see_the_new_examples_only():
    class Sees(SupervisedPlugin):
        sizes = set()

        def after_forward(self, strategy, **kwargs):
            self.sizes.add((len(strategy.mb_x), len(strategy.mb_y), len(strategy.mb_output), len(strategy.mb_task_id)))

    stream, sees = benchmark(), Sees()
    seen_by_criterion = set()

    def criterion(output, y):
        seen_by_criterion.add((len(output), len(y)))
        return nn.functional.cross_entropy(output, y)

    made = strategy(mlp(), plugins=[sees], criterion=criterion, train_mb_size=20, evaluator=accuracy())
    made.train(stream.train_stream[:2], eval_streams=[])
    assert sees.sizes == {(20, 20, 20, 20)}
    assert seen_by_criterion == {(20, 20)}


# ------------------------------------------------------------------------------------------------ the weights


def parameters(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


class AtTheMean(SupervisedPlugin):
    """Asserts that the weights are the same before and after a step's sample, and differ inside of it."""

    def __init__(self):
        super().__init__()
        self.inside = 0

    def before_training_iteration(self, strategy, **kwargs):
        self.mean = parameters(strategy.model)

    def after_forward(self, strategy, **kwargs):
        self.inside += sum(not torch.equal(p, self.mean[n]) for n, p in strategy.model.named_parameters())

    def before_update(self, strategy, **kwargs):
        assert all(torch.equal(p, self.mean[n]) for n, p in strategy.model.named_parameters())


@both
def test_ivon_samples_for_the_gradient_and_is_back_at_the_mean_for_the_step(host):
    check = AtTheMean()
    made = host(mlp(), ivon, plugins=[check])
    made.train(benchmark().train_stream[:2])
    assert check.inside == 4 * 12  # four parameters in twelve iterations


class Breaks(SupervisedPlugin):
    def __init__(self, where):
        super().__init__()
        self.failed = False
        setattr(self, where, self.fail)

    def before_training_iteration(self, strategy, **kwargs):
        self.mean = parameters(strategy.model)

    def fail(self, strategy, **kwargs):
        if strategy.clock.train_iterations == 2 and not self.failed:
            self.failed = True
            raise KeyboardInterrupt


@both
@pytest.mark.parametrize("where", ["before_forward", "after_forward", "before_backward", "before_update"])
def test_an_exception_anywhere_in_a_step_leaves_the_mean(host, where):
    breaks, stream = Breaks(where), benchmark().train_stream
    made = host(mlp(), ivon, plugins=[breaks])
    with pytest.raises(KeyboardInterrupt):
        made.train(stream[0])
    assert all(torch.equal(p, breaks.mean[n]) for n, p in made.model.named_parameters())
    made.train(stream[0])  # and training can go on
    assert len(made.algorithm.memory) == 20


@both
def test_a_head_that_grows_keeps_the_posterior_of_its_old_part(host):
    class Check(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            self.state = {
                n: {k: torch.as_tensor(v).clone() for k, v in strategy.optimizer.state[p].items()}
                for n, p in strategy.model.named_parameters()
                if p in strategy.optimizer.state
            }

    stream, check = benchmark(), Check()
    made = host(growing_mlp(), ivon, plugins=[check])
    made.train(stream.train_stream[0])
    head = made.model[-1].classifier.weight
    before = {k: torch.as_tensor(v).clone() for k, v in made.optimizer.state[head].items()}
    made.eval(stream.test_stream)  # lets the head grow, unseen by the optimizer
    made.train(stream.train_stream[1])
    after = check.state["2.classifier.weight"]
    assert after["hess"].shape == (10, 20) and before["hess"].shape == (2, 20)
    assert torch.equal(after["hess"][:2], before["hess"]) and torch.equal(after["momentum"][:2], before["momentum"])
    assert bool((after["hess"][2:] == 0.1).all()) and bool((after["momentum"][2:] == 0).all())
    assert int(after["step"]) == int(before["step"]) == 6
    body = made.optimizer.state[made.model[0].weight]
    assert int(body["step"]) == 12, "what did not grow goes on"


def test_soft_labels_of_a_narrower_head_are_replayed_by_a_wider_one():
    made, stream = strategy(growing_mlp(), memory_size=10, condensation=None), benchmark().train_stream
    for i, experience in enumerate(stream):
        made.train(experience)
        z = made.algorithm.memory.exemplars
        assert z.logits.shape[1] == 2 * i + 2, "no class is known before it came"
        with torch.no_grad():
            assert torch.allclose(z.logits, made.model.eval()(z.x), atol=1e-5)


def test_batch_norm_is_left_as_it_was_found_and_learns_from_replay():
    made = strategy(mlp(norm=True), ivon, memory_size=10)
    made.train(benchmark().train_stream[:2])
    norm = made.model[1]
    assert norm.training and int(norm.num_batches_tracked) == 2 * 2 * 3  # scoring examples leaves it alone


@both
def test_the_learning_rate_falls_within_each_experience(host):
    class Rates(SupervisedPlugin):
        rates = []

        def before_forward(self, strategy, **kwargs):
            self.rates.append(strategy.optimizer.param_groups[0]["lr"])

    rates = Rates()
    rates.rates = []
    made = host(mlp(), plugins=[rates], lr_end=0.1, train_mb_size=20, train_epochs=2)
    made.train(benchmark().train_stream[:2])
    expected = [2e-2 * (1 - 0.9 * k / 4) for k in range(4)]
    assert rates.rates == pytest.approx(expected * 2)


# ---------------------------------------------------------------------------------- the same as the Lightning host


def in_lightning(stream, optimizer, seed, epochs, batch, **options):
    torch.manual_seed(seed)
    model = MLP(64, (64,), 10)
    learner = Learner(model, BayesDual(**options), optimizer)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(learner, datamodule=StreamDataModule(stream, epochs, batch))
    return model, learner.algorithm, trainer.optimizers[0], learner.history.accuracy[-1]


def in_avalanche(stream, optimizer, seed, epochs, batch, **options):
    torch.manual_seed(seed)
    model = MLP(64, (64,), 10)
    made = BayesDualStrategy(
        model=model,
        algorithm=BayesDual(**options),
        optimizer=None if optimizer is None else optimizer(model.parameters()),
        train_mb_size=batch,
        train_epochs=epochs,
        eval_mb_size=500,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True)),
    )
    for experience in stream.train_stream:
        made.train(experience, eval_streams=[])
    metrics = made.eval(stream.test_stream)
    accuracies = [v for k, v in sorted(metrics.items()) if k.startswith("Top1_Acc_Exp/eval")]
    return model, made.algorithm, made.optimizer, accuracies


def host_ivon(params):
    return IVON(params, lr=0.2, ess=12000, hess_init=0.1, betas=(0.9, 0.9999), seed=3)


def host_adam(params):
    return torch.optim.Adam(params, lr=1e-3)


@pytest.mark.parametrize("optimizer", [host_adam, host_ivon, None], ids=["adam", "ivon", "by the rule"])
@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_given_the_same_batches_both_hosts_do_the_same_to_the_weights(optimizer, monkeypatch):
    """Every batch is the whole experience, so the order in which it is drawn does not matter."""
    monkeypatch.setattr("bayesdual.ivon.rule.IVON", partial(IVON, seed=3))
    monkeypatch.setattr("bayesdual.ivon.rule.LR", 50.0)  # so that it is the number of steps that limits it
    stream = RotatedDigits(n_experiences=3)  # of experiences of one size, as the rule has it
    runs = [host(stream, optimizer, 0, 3, 10**6, memory_size=50) for host in (in_lightning, in_avalanche)]
    (ours, algorithm, made, accuracies), (theirs, other, other_made, other_accuracies) = runs
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-4, name
    assert torch.equal(algorithm.memory.exemplars.index, other.memory.exemplars.index)
    assert accuracies == pytest.approx(other_accuracies, abs=0.02)
    settings, others = ({k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (made, other_made))
    assert settings == others
    if optimizer is None:
        size = len(stream.train_stream[0].dataset)
        rule = IVONByRule().make(ours.parameters(), size, 3)
        assert settings["ess"] == size and settings["initial_lr"] == rule.param_groups[0]["lr"] < 0.75
        assert settings["hess_init"] == rule.param_groups[0]["hess_init"]
        assert made.max_norm == other_made.max_norm == rule.max_norm


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_both_hosts_reach_the_same_accuracy_within_the_noise_of_seeds():
    stream, means = SplitDigits(), []
    for host in (in_lightning, in_avalanche):
        runs = [host(stream, None, seed, 3, 32, memory_size=100) for seed in range(3)]
        means.append(torch.tensor([accuracies for *_, accuracies in runs]).double().mean(1))
    a, b = means
    noise = (a.var() / 3 + b.var() / 3).sqrt()
    assert a.mean() > 0.75 and b.mean() > 0.75
    assert (a.mean() - b.mean()).abs() < 3 * noise + 0.01, means


def test_the_rule_takes_the_first_experience_as_it_is_learned_and_pieces_are_refused(monkeypatch):
    monkeypatch.setattr("bayesdual.ivon.rule.LR", 10.0)
    made, stream = strategy(mlp(), lambda model: None, train_mb_size=16, train_epochs=5), benchmark()
    made.train(stream.train_stream[0], eval_streams=[])
    group = made.optimizer.param_groups[0]
    wanted = ivon_settings(sum(p.numel() for p in made.model.parameters()), 40, 5 * 3)
    assert {"lr": group["initial_lr"], "ess": group["ess"], "hess_init": group["hess_init"]} | {
        "max_norm": made.optimizer.max_norm
    } == pytest.approx(wanted)
    optimizer = made.optimizer
    made.train(stream.train_stream[1], eval_streams=[])
    assert made.optimizer is optimizer
    with pytest.raises(ValueError, match="cannot follow from a piece of a stream"):
        strategy(mlp(), lambda model: None, task_free=True).train(stream.train_stream[0])
    with pytest.raises(ValueError, match="cannot follow from a piece of a stream"):
        strategy(mlp(), lambda model: None).train(split_online_stream(stream.train_stream, 5, seed=0))


# ------------------------------------------------------------------------------ the memory, and Avalanche's replay


@both
@pytest.mark.parametrize("memory_size", [10, 25, 1000])
def test_the_memory_is_always_full_and_balanced(host, memory_size):
    made = host(mlp(), memory_size=memory_size)
    seen = 0
    for i, experience in enumerate(benchmark().train_stream):
        made.train(experience)
        seen += len(experience.dataset)
        counts = made.algorithm.memory.exemplars.y.bincount(minlength=10)[: 2 * i + 2]
        assert counts.sum() == min(memory_size, seen) and counts.max() - counts.min() <= 1


def test_a_memory_smaller_than_the_replay_batch_is_replayed_in_full():
    made = strategy(mlp(), memory_size=10, replay_batch_size=64, train_epochs=15, evaluator=accuracy())
    stream = benchmark()
    made.train(stream.train_stream, eval_streams=[])
    assert average(made.eval(stream.test_stream)) > 0.7


def policies():
    select = SelectionStrategy(selection.herding, 25)
    return [
        SelectedExemplarsBuffer(25, selection.herding),
        SelectedExemplarsBuffer(25),
        ParametricBuffer(25, "class", select),
    ]


@pytest.mark.parametrize("policy", policies(), ids=["herding", "default", "parametric"])
@pytest.mark.filterwarnings("ignore:Call to deprecated")  # by Avalanche's ReplayPlugin, in each experience
def test_avalanche_s_replay_uses_our_policy_and_our_selection(policy):
    stream, model = benchmark(), mlp()
    replay = ReplayPlugin(mem_size=25, storage_policy=policy)
    made = Naive(model=model, optimizer=adam(model), train_mb_size=16, train_epochs=8, plugins=[replay], evaluator=None)
    seen = 0
    for i, experience in enumerate(stream.train_stream):
        made.train(experience, eval_streams=[])
        seen += len(experience.dataset)
        lengths = torch.tensor(list(policy.buffer.targets)).bincount(minlength=10)[: 2 * i + 2]
        assert lengths.sum() == min(25, seen) == sum(len(d) for d in policy.buffer_datasets)
        assert lengths.max() - lengths.min() <= 1
        assert model.training
    policy.resize(made, 10)
    assert len(policy.buffer) == (10 if isinstance(policy, SelectedExemplarsBuffer) else len(policy.buffer))
    made.train(stream.train_stream[0], eval_streams=[])  # an experience may come again
    assert accuracy_of(model, stream.test_stream) > 0.4


@pytest.mark.filterwarnings("ignore:Call to deprecated")
def test_avalanche_s_replay_learns_with_ivon_beside_a_plugin_without_memory():
    stream, policy = benchmark(), SelectedExemplarsBuffer(20)
    replay = ReplayPlugin(mem_size=20, storage_policy=policy)
    made = naive(mlp(), ivon, memory_size=0, plugins=[replay], train_epochs=8)
    made.train(stream.train_stream, eval_streams=[])
    assert torch.tensor(list(policy.buffer.targets)).bincount().tolist() == [2] * 10
    assert accuracy_of(made.model, stream.test_stream) > 0.5


def test_trimming_keeps_the_first_that_were_chosen():
    stream, model = benchmark(), mlp()
    made = Naive(model=model, optimizer=adam(model), train_mb_size=16, evaluator=None)
    policy = SelectedExemplarsBuffer(8, selection.herding)
    made.train(stream.train_stream[0])
    policy.post_adapt(made, stream.train_stream[0])
    first = {k: [d[i][0] for i in range(len(d))] for k, d in policy.buffer_groups.items()}
    policy.post_adapt(made, stream.train_stream[1])
    for key in ((0, 0), (1, 0)):
        kept = [policy.buffer_groups[key][i][0] for i in range(2)]
        assert torch.equal(torch.stack(kept), torch.stack(first[key][:2]))


def test_a_selection_strategy_gives_the_order_that_the_selection_gives():
    model = mlp()
    made = Naive(model=model, optimizer=adam(model), evaluator=None)
    data = benchmark().train_stream[0].dataset
    model.eval()
    features = model[:2](torch.stack([data[i][0] for i in range(len(data))])).detach()
    expected = selection.herd(nn.functional.normalize(features, dim=1), 7).tolist()
    assert SelectionStrategy(selection.herding, 7).make_sorted_indices(made, data) == expected


# ----------------------------------------------------------------------------------------------------- bad input


def weighted(candidates, n, generator):
    return torch.arange(n), torch.arange(1.0, n + 1)


def unlabelled():
    return benchmark_from_datasets(train=[as_avalanche_dataset(TensorDataset(*clusters(5, 0).tensors))])


@both
@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda host: host(mlp()).train(unlabelled().train_stream), "has no targets"),
        (lambda host: host(mlp()).train(SimpleNamespace(current_experience=0), []), "has no dataset"),
        (
            lambda host: host(mlp(), memory_size=3).train(benchmark().train_stream),
            "memory_size is 3, but .* has 4 classes",
        ),
        (
            lambda host: host(nn.Linear(6, 3)).train(benchmark().train_stream),
            "has the label 3, but the model tells the c",
        ),
        (lambda host: host(mlp(), lambda m: ivon(m, mc_samples=2)).train(benchmark().train_stream), "mc_samples=2"),
        (lambda host: host(mlp(), lr_end=-1.0), "lr_end is -1"),
        (lambda host: host(mlp(), memory_size=-1), "memory_size is -1"),
        (lambda host: host(mlp(), temperature=0), "temperature is 0"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(host, make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(host)


@both
def test_a_stream_without_task_labels_suits_one_head_and_is_refused_by_many(host):
    stream = pieces(torch.arange(200).split(40))
    made = host(mlp())
    made.train(stream)
    assert not hasattr(stream[0], "task_labels") and len(made.algorithm.memory) == 20
    with pytest.raises(ValueError, match="a head for each task, but experience 0 of the stream has no task labels"):
        host(MultiHead()).train(stream)


@pytest.mark.filterwarnings("ignore:Call to deprecated")
def test_a_selection_that_weights_is_refused_by_replay_without_weights():
    model = mlp()
    replay = ReplayPlugin(10, storage_policy=SelectedExemplarsBuffer(10, weighted))
    made = Naive(model=model, optimizer=adam(model), plugins=[replay], evaluator=None)
    with pytest.raises(ValueError, match="the selection weighted weights what it chooses"):
        made.train(benchmark().train_stream[0], eval_streams=[])


def test_none_of_our_code_warns_or_calls_what_is_deprecated(tmp_path):
    from bayesdual.strategies import load_checkpoint, save_checkpoint

    stream = benchmark()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for host in (strategy, naive):
            made = host(growing_mlp(), ivon, evaluator=accuracy())
            made.train(stream.train_stream[:2])
            made.eval(stream.test_stream)
            save_checkpoint(made, tmp_path / "strategy.pt")
            load_checkpoint(host(growing_mlp(), ivon), tmp_path / "strategy.pt")
        for policy in policies():
            policy.post_adapt(made, stream.train_stream[0])
    ours = [str(w.message) for w in caught if ROOT in Path(w.filename).parents and ".venv" not in w.filename]
    assert not ours
    assert not [w for w in caught if issubclass(w.category, DeprecationWarning | FutureWarning)]


# ------------------------------------------------------------------------------------------------------ the example


def test_the_example_is_short_and_learns(capsys):
    path = ROOT / "examples" / "avalanche_plugin.py"
    assert len(path.read_text().splitlines()) < 40
    runpy.run_path(str(path), run_name="__main__")
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("after experience 5") and float(last.split()[3]) > 0.85


def parts_of(x, labels, **settings):
    """Two experiences of half the examples each."""
    n = len(labels) // 2
    halves = [Items(x[:n], labels[:n], **settings), Items(x[n:], labels[n:], **settings)]
    return benchmark_from_datasets(train=[as_classification_dataset(half) for half in halves]).train_stream


def half_of(label):
    return label // 2


@both
def test_a_target_transform_says_what_is_learned_and_remembered(host):
    x, y = clusters(20, 0).tensors
    made = host(mlp(nn.Linear(20, 5)))
    made.train(parts_of(x, y.tolist(), target_transform=half_of))
    assert sorted(made.algorithm.memory.exemplars.y.unique().tolist()) == [0, 1, 2, 3, 4]


@both
def test_data_that_cannot_be_learned_are_refused_where_it_is_seen(host):
    x, y = clusters(20, 0).tensors
    broken = x.clone()
    broken[3, 2] = torch.nan
    for stream, sentence in (
        (parts_of(x, (y / 2).tolist()), "are floats, .*give algorithm.likelihood gaussian"),
        (parts_of(broken, y.tolist()), "of a batch of experience 0 of the stream has the input nan"),
        (parts_of(x, (y + 3).tolist()), "experience 1 of the stream has the label 12, but the model tells .* 0 to 9"),
    ):
        with pytest.raises(ValueError, match=sentence):
            host(mlp()).train(stream)
    made = host(mlp())
    with pytest.raises(ValueError, match="the experience that is evaluated has the label 1[012], but"):
        made.eval(parts_of(x, (y + 3).tolist()))


@both
def test_processes_that_would_each_learn_a_model_of_their_own_are_refused(host, monkeypatch):
    processes = SimpleNamespace(world_size=2, rank=0, is_distributed=True)
    monkeypatch.setattr("bayesdual.strategies.plugin.DistributedHelper", processes)
    made = host(mlp())
    with pytest.raises(ValueError, match="there are 2 processes, and each would learn a model of its own: wrap"):
        made.train(benchmark().train_stream)
    assert not made.algorithm.memory.counts


@both
def test_a_memory_smaller_than_the_classes_is_refused_before_they_are_learned(host):
    model = mlp()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="memory_size is 1, but data.benchmark has 2 classes"):
        host(model, memory_size=1).train(benchmark().train_stream[0])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
