"""The benchmarks: all can be started, and what is claimed of reconstruction holds in small."""

import importlib
import statistics
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "mnist_5k")


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in NAMES:
            del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_says_how_it_is_used(load, name, monkeypatch, capsys):
    module = load(name)
    assert f"python benchmarks/{name}.py" in module.__doc__
    if name != "gap_closure":  # which hands everything to compare
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as stop:
            module.main()
        assert stop.value.code == 0 and "usage" in capsys.readouterr().out


def test_memory_vectors_reconstruct_the_past_better_than_as_many_examples(load):
    kprior_error = load("kprior_error")
    problem = kprior_error.pose("digits", 300, decay=1.0)
    fills = {name: kprior_error.examples(kprior_error.find_selection(name)) for name in ("random_selection", "herding")}
    for size in (20, 100):
        mine = statistics.mean(kprior_error.error(problem, kprior_error.vectors, size, seed) for seed in range(3))
        for fill in fills.values():
            assert mine < statistics.mean(kprior_error.error(problem, fill, size, seed) for seed in range(3))
    for fill in (*fills.values(), kprior_error.vectors):
        assert kprior_error.error(problem, fill, len(problem.x), 0) < 1e-6  # all examples are in memory


@pytest.mark.parametrize("name", ["fromp", "ivon_vs_adamw"])
def test_results_that_are_kept_are_shown_with_the_code_that_made_them(load, name, monkeypatch, capsys):
    results = FOLDER / "results" / f"{name}.jsonl"
    before = results.read_text()
    monkeypatch.setattr(sys, "argv", [name, "--results", str(results), "--table"])
    load(name).main()
    out = capsys.readouterr().out
    assert out.count(" ± ") >= 18 and "\nmade by bayesdual " in out and "[" not in out, "every run is there"
    assert results.read_text() == before


def test_a_run_of_a_benchmark_is_made_once_for_its_settings(load, monkeypatch, capsys, tmp_path):
    seeds = load("seeds")
    made = []
    measured = dict.fromkeys(seeds.SHOWN, 0.5)
    monkeypatch.setattr(seeds, "fit", lambda arguments, seed: made.append(seed) or measured)
    argv = ["seeds", "--results", str(tmp_path / "runs.jsonl"), "--config", "configs/split_digits.yaml"]
    for more, expected in (["--seeds", "3"], [3]), (["--seeds", "3", "4"], [3, 4]), (["--data.epochs", "2"], None):
        monkeypatch.setattr(sys, "argv", [*argv, *more])
        seeds.main()
        assert expected is None or made == expected
    assert made == [3, 4, 0, 1, 2], "other settings are other runs"
    assert "made by bayesdual " in capsys.readouterr().out
