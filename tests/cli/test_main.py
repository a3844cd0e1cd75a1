"""Help, version and lists: in no time, and true to what is there."""

import inspect
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from torch import nn

from bayesdual import __version__, kprior, memory, models, scenarios, sources
from bayesdual.__main__ import main

CPU_SECONDS = 1.5  # of --help and --version on a machine that is idle
SLACK = 2


def call(*argv):
    """Runs the command line in this process: status, standard output and standard error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(word) for word in argv])
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("argv", [["--help"], ["--version"], [], ["study"], ["list", "baselines"]])
def test_what_prints_a_text_is_quick_and_loads_nothing_heavy(argv):
    script = (
        "import sys, time; from bayesdual.__main__ import main; main(sys.argv[1:]);"
        "print(time.process_time(), *{'torch', 'lightning', 'torchvision', 'scipy', 'avalanche'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, timeout=60)
    seconds, *heavy = done.stdout.splitlines()[-1].split()
    assert not heavy and float(seconds) < CPU_SECONDS * SLACK


def test_help_names_every_command():
    status, out, _ = call("--help")
    assert status == 0 and call("-h")[1] == out
    for command in ("fit", "validate", "test", "predict", "learn", "compare", "merge", "export", "list"):
        assert f"\n  {command} " in out
    assert all(len(line) <= 100 for line in out.splitlines())


def test_the_version_has_the_digest_of_the_code():
    assert call("--version") == (0, f"bayesdual {__version__} (code {sources.digest_of_all()[:8]})\n", "")


def test_a_command_that_is_not_there_is_refused_with_the_one_that_was_meant():
    assert call("fitt")[::2] == (2, "bayesdual: 'fitt' is not a command; did you mean fit?\n")
    status, _, err = call("study")
    assert status == 2 and err.startswith("bayesdual: 'study' is not a command: choose fit, validate, test, predict")


def listed(kind):
    status, out, err = call("list", kind)
    assert (status, err) == (0, "")
    lines = [line.split("  ", 1) for line in out.splitlines()]
    assert all(len(line) == 2 and line[1].strip() for line in lines), "one line each, and none without a text"
    return {name: text.strip() for name, text in lines}


def first_line(thing):
    return inspect.getdoc(thing).splitlines()[0]


def test_scenarios_are_those_of_the_registry():
    expected = {f"bayesdual.scenarios.{name}": first_line(getattr(scenarios, name)) for name in scenarios.SCENARIOS}
    assert listed("scenarios") == expected


def test_networks_are_the_public_modules():
    public = {name: getattr(models, name) for name in models.__all__}
    modules = {name: c for name, c in public.items() if inspect.isclass(c) and issubclass(c, nn.Module)}
    assert len(modules) >= 5
    found, backbones = listed("networks"), listed("backbones")
    assert found.pop("bayesdual.lora.LoRAClassifier").startswith("A Hugging Face encoder")  # which needs an extra
    assert backbones.pop("bayesdual.lora.SentenceFeatures").startswith("The mean of what a Hugging Face encoder")
    assert found | backbones == {f"bayesdual.models.{name}": first_line(c) for name, c in modules.items()}
    assert list(backbones) == ["bayesdual.models.EfficientNetLite"]


def test_selections_are_the_public_functions_of_that_form():
    public = {name: getattr(memory, name) for name in memory.__all__}
    form = ["candidates", "n", "generator"]
    selections = {
        name: f
        for name, f in public.items()
        if inspect.isfunction(f) and list(inspect.signature(f).parameters)[:3] == form
    }
    assert len(selections) >= 6
    assert listed("selections") == {f"bayesdual.memory.{name}": first_line(f) for name, f in selections.items()}


def test_priors_are_the_public_classes_that_hold_weights():
    public = {name: getattr(kprior, name) for name in kprior.__all__}
    priors = {
        name: c
        for name, c in public.items()
        if inspect.isclass(c) and hasattr(c, "loss") and hasattr(c, "update") and c is not kprior.WeightPrior
    }
    assert len(priors) >= 2
    assert listed("priors") == {f"bayesdual.kprior.{name}": first_line(c) for name, c in priors.items()}


def test_baselines_are_those_of_the_registry():
    from bayesdual.strategies.baselines import BASELINES

    assert listed("baselines") == {name: first_line(function) for name, function in BASELINES.items()}


def test_methods_are_the_overlays_that_ship():
    found = listed("methods")
    assert {"methods/full.yaml", "methods/replay.yaml", "methods/naive.yaml"} <= found.keys()
    assert found["methods/replay.yaml"] == "Experience replay: a random memory, replayed with its labels."


def test_without_a_kind_the_kinds_are_listed():
    status, out, _ = call("list")
    assert status == 0 and call("list", "--help")[1] == out
    for kind in ("scenarios", "networks", "selections", "priors", "methods", "baselines"):
        assert f"\n{kind} " in out


def test_a_kind_that_is_not_there_is_refused():
    assert call("list", "network")[::2] == (
        2,
        "bayesdual: 'network' is not a kind of thing to list; did you mean networks?\n",
    )
    assert call("list", "zzz")[2].startswith("bayesdual: 'zzz' is not a kind of thing to list: choose scenarios, net")
    assert call("list", "methods", "networks")[0] == 2
