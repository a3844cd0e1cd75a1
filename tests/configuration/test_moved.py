"""Configurations of before the packages: every name in them leads to where its thing is today."""

from importlib import import_module
from pathlib import Path

import pytest

from bayesdual.comparison import read_comparison
from bayesdual.configuration import (
    MOVED,
    CommandLineError,
    Setting,
    arguments,
    current_name,
    current_names,
    resolve,
    with_current_names,
)

SHIPPED = Path(str(arguments.resources.files("bayesdual.configs")))
OLD = {  # as the shipped configurations of 0.1.0 said it, in the order in which they are put back
    "bayesdual.memory.random_selection": "bayesdual.selection.random",
    "bayesdual.memory.memory_vectors": "bayesdual.condensation.memory_vectors",
    "bayesdual.memory.": "bayesdual.selection.",
    "bayesdual.kprior.KroneckerPrior": "bayesdual.kronecker.KroneckerPrior",
    "bayesdual.ivon.IVONByRule": "bayesdual.rule.IVONByRule",
    "baselines: bayesdual.strategies.baselines": "peers: bayesdual.strategies.peers",
    "{baseline: ": "{peer: ",
}
# The config.yaml that 0.1.0 left in a run directory, without what has no dotted name.
SAVED = """
seed_everything: 0
model:
  network: {class_path: bayesdual.models.MLP, init_args: {in_features: 64, hidden: [256, 256], n_classes: 10}}
  algorithm:
    class_path: bayesdual.algorithm.BayesDual
    init_args:
      memory_size: 100
      weight_prior: {class_path: bayesdual.kronecker.KroneckerPrior, init_args: {strength: 1.0}}
      selection: bayesdual.selection.dual_coverage
      condensation: bayesdual.condensation.memory_vectors
  optimizer: {class_path: bayesdual.rule.IVONByRule, init_args: {lr_factor: 1.0, betas: [0.9, 0.9999]}}
  lr_end: 0.0
data: {benchmark: {class_path: bayesdual.scenarios.SplitDigits, init_args: {n_experiences: 5}}, epochs: 50}
"""


def of_before(text):
    for new, old in OLD.items():
        text = text.replace(new, old)
    return text


def shipped(pattern):
    return sorted(path.relative_to(SHIPPED).as_posix() for path in SHIPPED.glob(pattern))


@pytest.mark.parametrize("name", [n for n in shipped("*.yaml") if not n.startswith("compare_") and "clinc150" not in n])
def test_every_configuration_of_before_resolves_to_what_it_does_today(name, tmp_path):
    old = tmp_path / "old.yaml"
    text = (
        (SHIPPED / name)
        .read_text()
        .replace(
            "class_path: bayesdual.algorithm.BayesDual\n    init_args: {",
            "class_path: bayesdual.algorithm.BayesDual\n    init_args: {selection: bayesdual.memory.dual_coverage, ",
        )
    )  # which 0.1.0 spelled out
    old.write_text(of_before(text))
    assert "bayesdual.selection." in old.read_text()
    assert resolve(str(old)) == resolve(str(SHIPPED / name))


@pytest.mark.parametrize(
    "name", [n for n in shipped("methods/*.yaml") if "bayesdual.memory." in (SHIPPED / n).read_text()]
)
def test_every_overlay_of_before_does_too(name, tmp_path):
    base, old = str(SHIPPED / "split_digits.yaml"), tmp_path / "old.yaml"
    old.write_text(of_before((SHIPPED / name).read_text()))
    assert "bayesdual.selection." in old.read_text()
    assert resolve(base, str(old)) == resolve(base, str(SHIPPED / name))


def test_a_saved_configuration_of_before_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(SAVED)
    algorithm = resolve(str(path))["model"]["algorithm"]["init_args"]
    assert algorithm["selection"] == "bayesdual.memory.dual_coverage"
    assert algorithm["condensation"] == "bayesdual.memory.memory_vectors"
    assert algorithm["weight_prior"]["class_path"] == "bayesdual.kprior.KroneckerPrior"
    assert resolve(str(path))["model"]["optimizer"]["class_path"] == "bayesdual.ivon.IVONByRule"


@pytest.mark.parametrize("name", [n for n in shipped("compare_*.yaml") if n != "compare_ablation.yaml"])
def test_comparisons_of_before_name_their_peers(name, tmp_path):
    old = tmp_path / "old.yaml"
    old.write_text(of_before((SHIPPED / name).read_text()))
    assert "peers: bayesdual.strategies.peers" in old.read_text() and "{peer: " in old.read_text()
    mine, theirs = read_comparison(str(old)), read_comparison(str(SHIPPED / name))
    assert mine.methods == theirs.methods and mine.baselines is theirs.baselines


def test_settings_of_a_comparison_and_flags_are_brought_up_to_date(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(SAVED)
    key = "model.algorithm.init_args.selection"
    algorithm = resolve(str(path), Setting(key, "bayesdual.selection.random"))["model"]["algorithm"]
    assert algorithm["init_args"]["selection"] == "bayesdual.memory.random_selection"
    argv = [
        "fit",
        "--config",
        "bayesdual.rule.yaml",
        f"--{key}=bayesdual.selection.random",
        "bayesdual.rule.IVONByRule",
    ]
    assert with_current_names(argv) == [
        "fit",
        "--config",
        "bayesdual.rule.yaml",
        f"--{key}=bayesdual.memory.random_selection",
        "bayesdual.ivon.IVONByRule",
    ]


# What a configuration of before could name, module by module.
NAMES = {
    "condensation": "memory_vectors cell_means sees_means",
    "data": "StreamDataModule",
    "function_variance": "function_variance function_covariance",
    "history": "History",
    "inspection": "StreamCheckpoint StreamProgress RunReport",
    "ivon_callback": "IVONCallback",
    "kprior": "DiagonalPrior",
    "kronecker": "KroneckerPrior",
    "metrics": "StreamMetric average_accuracy forgetting",
    "models": "MLP CNN LeNet ResNet18",
    "modes": "evaluating",
    "rule": "IVONByRule ivon_settings",
    "scenarios.data": "digits mnist fashion_mnist cifar10 cifar100 RawDataset stratified_split",
    "selection": "random herding coverage dual_coverage score_sampling top_score Candidates",
    "sensitivity": "sensitivities leverage curvature",
    "spread": "Spread mean_predictions",
    "strategies.peers": "naive joint replay der er_ace gdumb a_gem ewc si lwf icarl",
}


@pytest.mark.parametrize("module", NAMES)
def test_every_name_of_before_leads_to_what_is_there_today(module):
    for name in NAMES[module].split():
        today, _, attribute = current_name(f"bayesdual.{module}.{name}").rpartition(".")
        assert hasattr(import_module(today), attribute), (module, name)


def test_every_line_of_the_table_is_for_something_that_was_there():
    before = {f"bayesdual.{module}.{name}" for module in NAMES for name in NAMES[module].split()}
    for old in MOVED:
        module = old.removesuffix(".*")
        assert old in before or any(name.startswith(f"{module}.") for name in before), old
        assert current_name(current_name(old)) == current_name(old), "nothing moves twice"


def test_only_names_are_replaced():
    text = (
        "# bayesdual.rule\nroot: /data/bayesdual.data.x/y\nclass_path: bayesdual.rule.IVONByRule  # my.bayesdual.rule.X"
    )
    assert current_names(text) == text.replace("class_path: bayesdual.rule", "class_path: bayesdual.ivon")
    assert current_names("bayesdual.strategies.peers/x") == "bayesdual.strategies.peers/x"


@pytest.mark.parametrize("name", ["bayesdual.blocks.Layout", "bayesdual.selection.no_such", "bayesdual.zzz.zzzzzzz"])
def test_a_name_that_is_nowhere_is_refused_in_one_sentence(name, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(SAVED.replace("bayesdual.selection.dual_coverage", name))
    with pytest.raises(CommandLineError) as refused:
        resolve(str(path))
    sentence = str(refused.value)
    assert sentence.startswith(f"{path}: model.algorithm.init_args.selection is bayesdual.")
    assert "which is not there" in sentence and sentence.endswith((".", "?")) and "\n" not in sentence
