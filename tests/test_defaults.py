"""The defaults are the method: what the README's tables call bayesdual is what every way in gives."""

import inspect
import re
import runpy
from pathlib import Path

import pytest
import torch
from avalanche.training.templates import SupervisedTemplate
from lightning import Trainer

from bayesdual import BayesDual, KroneckerPrior, Learner
from bayesdual.comparison import objects_of
from bayesdual.configuration import find_configs, resolve
from bayesdual.ivon import IVON, IVONByRule
from bayesdual.likelihoods import Categorical
from bayesdual.memory import dual_coverage, memory_vectors
from bayesdual.models import MLP
from bayesdual.strategies import BayesDualPlugin, BayesDualStrategy

ROOT = Path(__file__).parents[1]
METHOD = {  # but for the memory size
    "replay_batch_size": 64,
    "label_share": 0.5,
    "temperature": 3.0,
    "weight_prior": {"strength": 3.0, "temperature": 3.0, "cap": 5.0, "input_rank": 64, "output_rank": 16}
    | {"examples": 500},
    "selection": dual_coverage,
    "condensation": memory_vectors,
    "spread": 0.6,
    "candidates": 1500,
    "likelihood": Categorical,
}
LR_END = 0.0


def settings(algorithm):
    """What an algorithm does, by the names of its parameters."""
    names = [name for name in inspect.signature(BayesDual).parameters if name not in ("memory_size", "memory_bytes")]
    values = {name: getattr(algorithm, name) for name in names}
    assert type(algorithm.weight_prior) is KroneckerPrior
    prior = {name: getattr(algorithm.weight_prior, name) for name in inspect.signature(KroneckerPrior).parameters}
    return values | {"weight_prior": prior, "likelihood": type(algorithm.likelihood)}


class Caught(Exception):
    """What was about to be trained."""


def catch(monkeypatch, owner, name):
    """Lets a method raise what it is called with, in place of training."""

    def raises(*args, **kwargs):
        raise Caught(*args)

    monkeypatch.setattr(owner, name, raises)


def code_of_the_readme(word):
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if word in b]
    return block


def test_the_algorithm():
    algorithm = BayesDual(memory_size=30)
    assert settings(algorithm) == METHOD and algorithm.memory.budget == 30
    assert BayesDual().weight_prior is not algorithm.weight_prior  # each has its own


@pytest.mark.parametrize("overlays", [(), ("methods/full.yaml",), ("methods/naive.yaml", "methods/full.yaml")])
def test_the_configuration_alone_and_after_an_overlay_that_full_undoes(overlays):
    files = [find_configs(["--config", f"configs/{name}"])[1] for name in ("split_fmnist.yaml", *overlays)]
    learner = objects_of(resolve(*files)).model
    assert settings(learner.algorithm) == METHOD and learner.lr_end == LR_END
    assert vars(learner._make_optimizer) == vars(IVONByRule())


def test_the_learner_of_the_readme(monkeypatch):
    catch(monkeypatch, Trainer, "fit")
    with pytest.raises(Caught) as caught:
        exec(code_of_the_readme("Learner("), {})
    _, learner, _ = caught.value.args
    assert isinstance(learner, Learner) and learner.lr_end == LR_END
    assert settings(learner.algorithm) == METHOD and vars(learner._make_optimizer) == vars(IVONByRule())


def test_the_strategy_of_the_readme(monkeypatch):
    catch(monkeypatch, SupervisedTemplate, "train")
    with pytest.raises(Caught) as caught:
        exec(code_of_the_readme("BayesDualStrategy("), {})
    strategy = caught.value.args[0]
    assert isinstance(strategy, BayesDualStrategy) and vars(strategy._rule) == vars(IVONByRule())
    assert settings(strategy.algorithm) == METHOD and strategy.plugins[0].lr_end == LR_END


def test_the_plugin_of_the_example(monkeypatch):
    catch(monkeypatch, SupervisedTemplate, "train")
    with pytest.raises(Caught) as caught:
        runpy.run_path(str(ROOT / "examples" / "avalanche_plugin.py"))
    strategy, experience = caught.value.args
    plugin, ivon = strategy.plugins[0], strategy.optimizer
    assert isinstance(plugin, BayesDualPlugin) and plugin.lr_end == LR_END and settings(plugin.algorithm) == METHOD
    size = len(experience.dataset)
    rule = IVONByRule().make(
        strategy.model.parameters(), size, strategy.train_epochs * -(-size // strategy.train_mb_size)
    )
    assert isinstance(ivon, IVON) and ivon.max_norm == rule.max_norm
    ours, theirs = ({k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (ivon, rule))
    assert ours == theirs


def test_the_hosts_without_the_examples():
    plugin, algorithm = BayesDualPlugin(BayesDual()), BayesDual()
    assert plugin.lr_end == Learner(MLP(4), algorithm).lr_end == LR_END and settings(plugin.algorithm) == METHOD


@pytest.mark.parametrize("prior", ["Kronecker", "none", ""])
def test_other_words_for_a_prior_are_refused(prior):
    with pytest.raises(ValueError, match=f"weight_prior is '{prior}'"):
        BayesDual(weight_prior=prior)


def test_a_checkpoint_with_another_prior_is_refused_in_a_sentence_and_loads_nothing():
    torch.manual_seed(0)
    one, without = BayesDual(30), BayesDual(30, weight_prior=None)
    with pytest.raises(ValueError, match="without a prior of the weights: give algorithm.weight_prior null"):
        one.load_state_dict(without.state_dict())
    with pytest.raises(ValueError, match="with a prior of the weights: give its algorithm.weight_prior"):
        without.load_state_dict(one.state_dict())
