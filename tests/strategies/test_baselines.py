"""Avalanche's strategies as baselines: each learns a stream, is measured as ours is, and says what it cannot do."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from avalanche.training.regularization import ACECriterion

from bayesdual.comparison import learn
from bayesdual.configuration import Setting, arguments, resolve
from bayesdual.strategies import baselines
from bayesdual.strategies.baselines import methods

pytestmark = pytest.mark.filterwarnings("ignore")  # Avalanche's own deprecations, Lightning's advice
DIGITS = str(Path(str(arguments.resources.files("bayesdual.configs"))) / "split_digits.yaml")
MEMORY = "model.algorithm.init_args.memory_size"
CHANCE = 0.1


def config(**more):
    values = {"data.epochs": 1, MEMORY: 50, "model.network.init_args.hidden": [64], **more}
    return resolve(DIGITS, *(Setting(key, value, "here") for key, value in values.items()))


def run(name, settings=None, **more):
    return baselines.learn(**baselines.plan(name, config(**more), settings or {}))


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_each_baseline_learns_and_is_measured_as_ours_is(name):
    own = {"random ridge": {"features": 200}, "quantised replay": {"memory_bytes": 3000}}.get(name, {})
    results = run(name, own, **{"data.epochs": 2})
    promised = {"average_accuracy", "forgetting", "nll", "ece", "seconds_total", "seconds_evaluation", "exemplars"}
    assert promised <= results.keys()
    matrix = results["accuracy_matrix"]
    assert len(matrix) == (1 if name == "joint" else 5) and all(len(row) == 5 for row in matrix)
    assert results["average_accuracy"] == pytest.approx(sum(matrix[-1]) / 5) and results["average_accuracy"] > CHANCE
    remembers = "memory_size" in baselines.plan(name, config(), own)["settings"]
    assert results["exemplars"] == (50 if remembers else 0)
    assert results["seconds_total"] > results["seconds_evaluation"] > 0
    if name not in ("naive", "EWC", "SI", "LwF", "CoVON"):
        assert results["average_accuracy"] > 0.4, "what remembers is far better than naive"


def test_ours_and_baselines_are_measured_by_the_same_keys():
    ours = learn(config(**{"model.algorithm.init_args.weight_prior": None}))
    assert ours.keys() == run("naive").keys() and ours["exemplars"] == 50


@pytest.mark.parametrize("name", ["Replay", "DER++", "ER-ACE", "A-GEM", "iCaRL"])
def test_a_memory_smaller_than_the_replay_batch_is_replayed(name):
    settings = {} if name == "iCaRL" else {"replay_batch_size": 64}
    few = {MEMORY: 20, "data.epochs": 3}
    results = run(name, settings, **few)
    assert results["exemplars"] == 20
    assert results["average_accuracy"] > run("naive", **few)["average_accuracy"] + 0.1


def test_a_run_is_the_same_again():
    first, again = run("DER++"), run("DER++")
    assert first["accuracy_matrix"] == again["accuracy_matrix"] and first["nll"] == again["nll"]
    assert run("DER++", seed_everything=1)["accuracy_matrix"] != first["accuracy_matrix"]


def test_what_is_evaluated_and_learned_is_what_the_configuration_says():
    valid = {"data.benchmark.init_args.validation": 0.2, "data.evaluate_on": "valid"}
    assert run("joint", **valid)["accuracy_matrix"] != run("joint")["accuracy_matrix"]
    arguments = baselines.plan("joint", config(), {"epochs": 3, "optimizer": "torch.optim.SGD", "lr": 0.1})
    assert arguments["settings"] == {"epochs": 3, "lr": 0.1, "optimizer": "torch.optim.SGD", "batch_size": 32}
    assert baselines.learn(**arguments)["average_accuracy"] > 0.5


def test_er_ace_has_avalanche_s_loss_but_no_nan():
    torch.manual_seed(0)
    new, y, replayed, replayed_y = torch.randn(8, 10), torch.randint(2, 4, (8,)), torch.randn(6, 10), torch.arange(6)
    ours = methods.asymmetric_cross_entropy(new, y, replayed, replayed_y)
    torch.testing.assert_close(ours, ACECriterion()(new, y, replayed, replayed_y))
    assert not torch.isfinite(ACECriterion()(200 * new, y, replayed, replayed_y))
    assert torch.isfinite(methods.asymmetric_cross_entropy(200 * new, y, replayed, replayed_y))
    alone = methods.asymmetric_cross_entropy(new, y, new, y)
    assert alone < F.cross_entropy(new, y), "new examples compete among fewer classes"


@pytest.mark.parametrize("name", ["naive", "DER++", "iCaRL"])
def test_a_learning_rate_that_diverges_says_so(name):
    with pytest.raises(FloatingPointError, match="lower lr"):
        run(name, {"lr": 1e30})


def test_si_holds_weights():
    assert run("SI", {"si_lambda": 1e5})["accuracy_matrix"] != run("naive")["accuracy_matrix"]


REFUSED = {
    "'replya' is not a baseline; did you mean Replay?": ("replya", {}, {}),
    "baseline no.such is not there": ("no.such", {}, {}),
    "ewc_lamda is not a setting of EWC; did you mean ewc_lambda?": ("EWC", {"ewc_lamda": 1}, {}),
    "replay_batch_size is 0, which Replay cannot learn with: give a whole": ("Replay", {"replay_batch_size": 0}, {}),
    "lr is -1, which naive cannot learn with: give a number above 0": ("naive", {"lr": -1}, {}),
    "the stream has task labels": ("naive", {}, {"data.benchmark.init_args.task_labels": True}),
    "iCaRL learns new classes": ("iCaRL", {}, {"data.benchmark.class_path": "bayesdual.scenarios.PermutedDigits"}),
}


@pytest.mark.parametrize(("sentence", "case"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_a_baseline_cannot_do_is_refused_in_a_sentence(sentence, case):
    name, given, more = case
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        run(name, given, **more)


def test_a_baseline_of_ones_own_is_named_by_its_dotted_path():
    name = f"{__name__}.two_epochs"
    assert "epochs" not in baselines.plan(name, config(), {})["settings"] and baselines.bound(name) is None
    assert run(name)["average_accuracy"] > CHANCE


def two_epochs(common):
    return methods.naive(common, epochs=2)
