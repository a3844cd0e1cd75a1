"""Inputs that are dicts or tuples, and models that return an object with logits, on the Avalanche host."""

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Naive
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.strategies import BayesDualPlugin, BayesDualStrategy
from tests.learner.test_parts import PLAIN, OfBoth, OfOne, Text, Whole, halves, texts
from tests.strategies.test_strategy import accuracy, adam, average

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")


def of_texts(**settings):
    torch.manual_seed(0)
    model = settings.pop("model", None) or Text()
    given = {"optimizer": adam(model), "train_mb_size": 16, "eval_mb_size": 50, "train_epochs": 6, **settings}
    return BayesDualStrategy(model=model, algorithm=BayesDual(memory_size=18, **PLAIN), evaluator=accuracy(), **given)


def test_tokens_with_masks_are_learned_and_remembered_whole():
    strategy, benchmark = of_texts(), texts()
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert average(strategy.eval(benchmark.test_stream)) > 0.9
    z = strategy.algorithm.memory.exemplars
    parts = strategy._parts.unpacked(z.x)
    for i, (experience, index) in enumerate(zip(z.experience.tolist(), z.index.tolist(), strict=True)):
        item = benchmark.train_stream[experience].dataset[index][0]
        assert all(torch.equal(parts[key][i], item[key]) for key in ("input_ids", "attention_mask"))


@pytest.mark.parametrize(("make", "kind"), [(lambda a, b: (a, b), OfOne), (lambda a, b: {"a": a, "b": b}, OfBoth)])
def test_parts_are_learned_as_one_tensor_would_be(make, kind):
    models = []
    for of, one in ((Whole, lambda a, b: torch.cat([a, b])), (kind, make)):
        torch.manual_seed(0)
        model = of()
        strategy = of_texts(
            model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1), train_epochs=1, train_mb_size=40
        )
        for experience in halves(one).train_stream:
            strategy.train(experience)
        models.append(model.state_dict())
    assert all(torch.allclose(v, models[1][k], atol=1e-6) for k, v in models[0].items())


class WithLogits(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Whole()

    def forward(self, x):
        return {"logits": self.body(x)}


def test_a_plugin_takes_the_logits_of_what_a_model_returns():
    benchmark, said = halves(lambda a, b: torch.cat([a, b])), []
    for kind in (Whole, WithLogits):
        torch.manual_seed(0)
        model = kind()
        plugin = BayesDualPlugin(BayesDual(memory_size=8))
        strategy = Naive(
            model=model,
            optimizer=adam(model),
            train_mb_size=16,
            eval_mb_size=50,
            plugins=[plugin],
            evaluator=accuracy(),
        )
        for experience in benchmark.train_stream:
            strategy.train(experience)
        said.append((average(strategy.eval(benchmark.test_stream)), *model.parameters()))
    assert said[0][0] == said[1][0] > 0.3  # two of the classes are alike
    assert all(torch.equal(a, b) for a, b in zip(said[0][1:], said[1][1:], strict=True))


def test_other_strategies_and_other_plugins_batches_of_parts_are_refused():
    [experience, *_] = texts().train_stream
    model = Text()
    naive = Naive(model=model, optimizer=adam(model), plugins=[BayesDualPlugin(BayesDual(memory_size=8))])
    with pytest.raises(ValueError, match="is a dict of attention_mask.*, which Naive does not take: give BayesDualStr"):
        naive.train(experience)
    strategy = of_texts(plugins=[ReplayPlugin(10)])
    first, second, *_ = texts().train_stream
    strategy.train(first)
    with pytest.raises(ValueError, match="batches are those of another plugin"):
        strategy.train(second)
