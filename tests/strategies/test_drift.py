"""A drift is told on the Avalanche host as on Lightning's, before it is learned."""

import warnings

import pytest
import torch

from bayesdual.algorithm import BayesDual
from bayesdual.models import MLP
from bayesdual.scenarios import SplitDigits, from_arrays
from bayesdual.strategies import BayesDualStrategy, StreamReport
from tests.learner.test_drift import DOMAIN, X, Y
from tests.learner.test_parts import Text, texts
from tests.strategies.test_strategy import accuracy, adam
from tests.strategies.test_strategy import benchmark as clusters

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


def learned(benchmark, network, plugins=(), evaluated=(), **algorithm):
    """The strategy, and the warnings of drift."""
    torch.manual_seed(0)
    model = network()
    strategy = BayesDualStrategy(
        model=model, algorithm=BayesDual(20, **algorithm), optimizer=adam(model), train_mb_size=32, train_epochs=2,
        eval_mb_size=100, evaluator=accuracy(), plugins=plugins,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for experience in benchmark.train_stream:
            strategy.train(experience)
            for stream in evaluated:
                strategy.eval(stream)
    return strategy.plugins[0], [str(w.message) for w in told if "two-sample test" in str(w.message)]


def test_a_drift_is_told_where_there_is_one(tmp_path):
    benchmark = from_arrays(X, Y, by="domain", domain=DOMAIN)
    report = StreamReport(tmp_path)
    report._leave = lambda *_: None  # figures, which take long
    plugin, told = learned(benchmark, lambda: MLP(4, (32,), 2), [report], [benchmark.test_stream])
    assert [found["drifts"] for found in plugin.drift] == [False, True, False]
    assert len(told) == 1 and told[0].startswith("the inputs of experience 3 are others than those of experience 2")
    assert report.history.results()["drift"] == plugin.drift == plugin.state_dict()["drift"]


def test_numbers_drift_too_and_new_classes_are_no_news():
    numbers = from_arrays(X, X[:, 0], by="domain", domain=DOMAIN, targets="numbers")
    plugin, told = learned(numbers, lambda: MLP(4, (32,), 1), likelihood="gaussian")
    assert [found["drifts"] for found in plugin.drift] == [False, True, False] and len(told) == 1
    assert all("entropy" not in found for found in plugin.drift)
    plugin, told = learned(SplitDigits(n_experiences=2), lambda: MLP(64, (16,)))
    assert plugin.drift[0]["drifts"] and not told


def test_a_stream_of_datasets_is_looked_at_once_it_is_evaluated():
    benchmark = texts()
    plugin, _ = learned(benchmark, Text, condensation=None)
    assert not plugin.drift
    plugin, told = learned(benchmark, Text, evaluated=[benchmark.test_stream], condensation=None)
    assert [found["experience"] for found in plugin.drift] == [2, 3] and not told  # new classes


def test_a_benchmark_of_datasets_is_looked_at_and_one_without_tests_is_not():
    plugin, _ = learned(clusters(), lambda: MLP(6, (16,)))
    assert [found["experience"] for found in plugin.drift] == [2, 3, 4, 5]
    alone = clusters()
    del alone._streams["test"], alone.test_stream
    assert not learned(alone, lambda: MLP(6, (16,)))[0].drift
