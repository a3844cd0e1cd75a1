"""What baselines carry, in bytes, and what a budget in bytes buys them."""

import pytest
import torch

from bayesdual.comparison import learn as learn_ours
from bayesdual.configuration import Setting, arguments, resolve
from bayesdual.strategies import baselines

pytestmark = pytest.mark.filterwarnings("ignore")  # Avalanche's own deprecations, Lightning's advice
ALGORITHM = "model.algorithm.init_args"
PARAMETERS = 64 * 16 + 16 + 16 * 10 + 10
IMAGE, LABEL, LOGITS = 64, 1, 40


def config(memory_size=None, memory_bytes=None, **more):
    values = {f"{ALGORITHM}.memory_size": memory_size, f"{ALGORITHM}.memory_bytes": memory_bytes, "data.epochs": 1}
    values |= {"model.network.init_args.hidden": [16], f"{ALGORITHM}.weight_prior": None, **more}
    digits = str(arguments.resources.files("bayesdual.configs") / "split_digits.yaml")
    return resolve(digits, *(Setting(key, value, "here") for key, value in values.items()))


def run(name, settings=None, **more):
    return baselines.learn(**baselines.plan(name, config(**more), settings or {}))


EXPERTS = {"weights": 5 * 4 * PARAMETERS, "curvature": 5 * 4 * (65**2 + 16**2 + 17**2 + 10**2)}
MERGED = "bayesdual.strategies.baselines.merging.merged_experts"
EXPECTED = {
    "naive": {},
    "Replay": {"inputs": 50 * IMAGE, "labels": 50},
    "GDumb": {"inputs": 50 * IMAGE, "labels": 50},
    "A-GEM": {"inputs": 50 * IMAGE, "labels": 50},
    "iCaRL": {"inputs": 50 * IMAGE, "labels": 50},
    "ER-ACE": {"inputs": 50 * IMAGE, "labels": 50},
    "DER++": {"inputs": 50 * IMAGE, "labels": 50, "logits": 50 * LOGITS},
    "EWC": {"weights": 5 * 4 * PARAMETERS, "importance": 5 * 4 * PARAMETERS},
    "SI": {"importance": 4 * PARAMETERS},
    "LwF": {"teacher": 4 * PARAMETERS},
    "CoVON": {"importance": 4 * PARAMETERS},
    MERGED: EXPERTS,
    f"{MERGED}_with_memory": {"inputs": 50 * IMAGE, "labels": 50, **EXPERTS},
    "nearest class mean": {"means": 4 * 10 * 64, "counts": 40},
    "streaming LDA": {"means": 4 * 10 * 64, "counts": 40, "covariance": 4 * 64 * 65 // 2},
    "random ridge": {"gram": 4 * 20 * 21 // 2, "sums": 4 * 20 * 10},
}


@pytest.mark.parametrize(("name", "parts"), EXPECTED.items(), ids=EXPECTED)
def test_each_baseline_says_by_part_what_it_carries(name, parts):
    results = run(name, {"features": 20} if name == "random ridge" else {}, memory_size=50)
    assert results["memory_bytes"] == parts


def test_every_baseline_is_counted():
    named = {name for name in EXPECTED if not name.startswith(MERGED)}
    assert {*named, *IN_BYTES, "joint"} == {*baselines.BASELINES}


IN_BYTES = {"low-rank LDA": ("means", "counts", "covariance"), "quantised replay": ("inputs", "labels")}


@pytest.mark.parametrize(("name", "parts"), IN_BYTES.items(), ids=IN_BYTES)
def test_what_is_coded_keeps_within_its_bytes_and_uses_them(name, parts):
    carried = run(name, {}, memory_bytes=2500)["memory_bytes"]
    assert tuple(carried) == parts and 2400 <= sum(carried.values()) <= 2500


@pytest.mark.parametrize(
    ("name", "kept"), {"Replay": 3300 // 65, "GDumb": 3300 // 65, "DER++": 3300 // 105, "random ridge": 0}.items()
)
def test_a_budget_buys_what_fits_into_it(name, kept):
    results = run(name, {}, memory_bytes=3300)
    assert results["exemplars"] == kept
    assert 3300 * 0.95 < sum(results["memory_bytes"].values()) <= 3300


def test_experts_that_are_merged_by_a_callback_are_counted_alike():
    callback = {"class_path": "bayesdual.learner.MergeExperts"}
    assert learn_ours(config(memory_size=0, **{"trainer.callbacks": [callback]}))["memory_bytes"] == EXPERTS


def test_inputs_that_are_no_bytes_are_counted_as_floats():
    of = baselines.carried.ExemplarBytes.of
    assert of(baselines.methods.replay, torch.zeros(2, 3, 5), 10) == (60, 1, 0)
    assert of(baselines.methods.replay, torch.zeros(2, 3, 5, dtype=torch.uint8), 257) == (15, 2, 0)
    assert of(baselines.methods.replay, torch.zeros(2, 3, 5, dtype=torch.int16), 10) == (30, 1, 0)  # tokens


def settings(name, own=None, **more):
    return baselines.plan(name, config(**more), own or {})["settings"]


def test_bytes_stand_in_the_place_of_the_number_that_follows_from_them():
    assert settings("Replay", memory_bytes=3300)["memory_bytes"] == 3300
    assert "memory_size" not in settings("Replay", memory_bytes=3300)
    assert settings("Replay", {"memory_bytes": 700}, memory_bytes=3300)["memory_bytes"] == 700
    own = settings("Replay", {"memory_size": 7}, memory_bytes=3300)
    assert own["memory_size"] == 7 and "memory_bytes" not in own
    assert settings("Replay", {"memory_bytes": 700}, memory_size=9)["memory_bytes"] == 700
    assert settings("Replay")["memory_size"] == 200, "as ours has it"
    assert settings("random ridge", memory_bytes=3300) == {"ridge_lambda": 1.0, "memory_bytes": 3300}
    assert settings("random ridge", {"features": 9}, memory_bytes=3300) == {"features": 9, "ridge_lambda": 1.0}


def test_what_has_no_budget_is_the_same_run_under_each():
    for name in ("naive", "joint", "EWC", "streaming LDA"):
        few, many = (baselines.plan(name, config(memory_bytes=n), {}) for n in (2000, 3300))
        assert few == many
    few, many = (baselines.plan("random ridge", config(memory_bytes=3300, **{"data.epochs": n}), {}) for n in (1, 5))
    assert few == many and few["network"] is None


REFUSED = {
    "memory_bytes is 649, but one exemplar for each of 10 classes takes 650: give at least as many": (
        "Replay",
        649,
        {},
    ),
    "memory_bytes is 1049, but one exemplar for each of 10 classes takes 1050": ("DER++", 1049, {}),
    "memory_bytes is 619, but one random feature for each of 10 classes takes 620": ("random ridge", 619, {}),
    "memory_size and memory_bytes are both given": ("Replay", None, {"memory_size": 9, "memory_bytes": 900}),
    "memory_bytes is 0, which Replay cannot learn with: give a whole number": ("Replay", None, {"memory_bytes": 0}),
    "memory_bytes is not a setting of EWC": ("EWC", None, {"memory_bytes": 900}),
    "random ridge needs features: give it, or memory_bytes": ("random ridge", None, {}),
    "lr is not a setting of streaming LDA; there are shrinkage": ("streaming LDA", None, {"lr": 1.0}),
    "shrinkage is 0, which streaming LDA cannot": ("streaming LDA", None, {"shrinkage": 0}),
    "ridge_lambda is '1', which random ridge cannot": ("random ridge", 3300, {"ridge_lambda": "1"}),
}


@pytest.mark.parametrize(("sentence", "case"), REFUSED.items(), ids=range(len(REFUSED)))
def test_a_budget_that_cannot_be_is_refused_in_a_sentence(sentence, case):
    name, memory_bytes, own = case
    with pytest.raises(ValueError, match=sentence):
        run(name, own, memory_bytes=memory_bytes)


def test_the_least_budgets_are_enough():
    assert run("Replay", memory_bytes=650)["exemplars"] == 10
    assert sum(run("random ridge", memory_bytes=620)["memory_bytes"].values()) == 620


def test_ours_is_counted_by_the_same_key_and_stays_within_the_budget():
    results = learn_ours(config(memory_bytes=3300))
    assert 0 < sum(results["memory_bytes"].values()) <= 3300 and results["memory_bytes"]["inputs"] > 0
