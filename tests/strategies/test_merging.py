"""Merging as a strategy on Avalanche: experts from the base, merged after each experience."""

import avalanche.training as training
import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer

from bayesdual.merging import Experts
from bayesdual.models import MLP
from bayesdual.scenarios import RotatedDigits, SplitDigits
from bayesdual.strategies import MergingPlugin
from bayesdual.stream import normalise

pytestmark = pytest.mark.filterwarnings("ignore")


def learned(stream, *plugins, model=None):
    torch.manual_seed(0)
    model = model or MLP(64, (16,), 10)
    strategy = training.Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-2),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=32,
        plugins=list(plugins),
        evaluator=EvaluationPlugin(),
    )
    for experience in stream:
        strategy.train(experience)
    return model.eval()


@torch.no_grad()
def accuracy(model, stream):
    data = [experience.tensors() for experience in stream]
    return [float((model(normalise(d.x, d.mean, d.std)).argmax(1) == d.y).float().mean()) for d in data]


def test_the_model_is_what_all_experts_come_to_and_each_began_at_the_base():
    begun = []

    class Watch(MergingPlugin):
        def before_training_exp(self, strategy, **kwargs):
            super().before_training_exp(strategy, **kwargs)
            begun.append({n: v.clone() for n, v in strategy.model.state_dict().items()})

    plugin = Watch(Experts("average"))
    model = learned(RotatedDigits(3).train_stream, plugin)
    base, experts = plugin.experts.base, plugin.experts.experts
    assert len(experts) == 2
    for state in begun[1:]:
        assert all(torch.equal(state[name], base[name]) for name in base)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, (base[name] + experts[0][name] + experts[1][name]) / 3)


def test_disjoint_classes_compare_once_the_head_is_fitted_again_on_a_memory():
    benchmark = SplitDigits(5)
    without, with_memory = (
        learned(benchmark.train_stream, MergingPlugin(Experts("regmean"), memory))
        for memory in (None, ClassBalancedBuffer(200))
    )
    few, more = (sum(accuracy(model, benchmark.test_stream)) / 5 for model in (without, with_memory))
    assert more > max(few, 0.6)


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="pull is 0"):
        MergingPlugin(Experts(), pull=0)
    plugin = MergingPlugin(Experts("average"))
    learned(SplitDigits(5).train_stream[:1], plugin)
    with pytest.raises(ValueError, match="give it all classes at the start"):
        learned(SplitDigits(5).train_stream[:1], plugin, model=MLP(64, (16,), 12))
