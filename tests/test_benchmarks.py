"""The benchmarks: all can be started, and what is claimed of reconstruction holds in small."""

import importlib
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from bayesdual.scenarios import from_arrays

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem not in ("mnist_5k", "suggest_problems", "unfamiliar")
)


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


@pytest.mark.parametrize("name", ["calibration", "fromp", "ivon_vs_adamw", "merging"])
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


def run_of(benchmark, method, accuracy, **memory_bytes):
    results = {"average_accuracy": accuracy, "memory_bytes": memory_bytes}
    return {"benchmark": benchmark, "method": method, "results": results}


def test_the_envelope_has_a_line_a_method_at_the_bytes_that_it_carried(load, tmp_path, monkeypatch):
    envelope = load("envelope")
    runs = [run_of(f"1 epoch / {b}", "ours", a, inputs=n) for b, n in (("9 B", 8), ("4 B", 4)) for a in (0.6, 0.8)]
    runs += [
        run_of(f"1 epoch / {b}", m, 0.7, **c) for b in ("9 B", "4 B") for m, c in (("LDA", {"c": 5}), ("joint", {}))
    ]
    runs += [run_of("5 epochs / 9 B", "ours", 0.9, inputs=6, labels=1), run_of("1 epoch / 9 B", "joint", 0.7)]
    runs += [{"benchmark": "1 epoch / 9 B", "method": "ours", "results": None}]
    drawn = envelope.panels({"runs": runs})
    assert drawn["1 epoch"]["ours"] == [(4, [0.6, 0.8]), (8, [0.6, 0.8])] and drawn["5 epochs"] == {
        "ours": [(7, [0.9])]
    }
    assert drawn["1 epoch"]["LDA"] == [(5, [0.7])], "one run under both budgets is one point"
    roles = {"ours": "ours", "LDA": "baseline", "joint": "upper"}
    results = {"runs": runs, "rows": [{"method": m, "role": r} for m, r in roles.items()]}
    axes = envelope.envelope_figure(results).axes
    assert [a.get_title() for a in axes] == ["1 epoch", "5 epochs"] and axes[0].get_xscale() == "log"
    assert {text.get_text() for text in axes[0].texts} == {*roles} and "axis begins at 0.58" in axes[0].get_ylabel()
    (tmp_path / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(sys, "argv", ["envelope", str(tmp_path / "results.json")])
    envelope.main()
    assert (tmp_path / "envelope.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="'memory 20' is not called STREAM / BUDGET"):
        envelope.panels({"runs": [run_of("memory 20", "ours", 0.5)]})


def test_labels_are_spread_out_in_their_order(load):
    spread_out = load("envelope").spread_out
    assert spread_out([0.5, 0.1, 0.9], 0.2) == [0.5, 0.1, 0.9]
    assert spread_out([0.51, 0.5, 0.49], 0.1) == pytest.approx([0.6, 0.5, 0.4])
    places = spread_out([0.5, 0.5, 0.58, 0.9], 0.1)
    assert places == pytest.approx([0.4267, 0.5267, 0.6267, 0.9], abs=1e-4)


def test_pictures_become_streams_whose_test_sources_are_unseen(load, tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    group, style, emoji = (part.ravel() for part in np.meshgrid(np.arange(9), np.arange(10), np.arange(10)))
    images = draw.integers(0, 256, (900, 32, 32, 3), dtype=np.uint8)
    names = {"group": np.char.add("group ", group.astype(str)), "style": np.char.add("style ", style.astype(str))}
    np.savez(tmp_path / "emoji.npz", images=images, **names, emoji=100 * group + emoji)
    label, font = (part.ravel() for part in np.meshgrid(np.arange(62), np.arange(300)))
    images = draw.integers(0, 256, (18600, 4, 4), dtype=np.uint8)
    np.savez(
        tmp_path / "glyphs.npz", images=images, labels=label.astype(str), fonts=np.char.add("font ", font.astype(str))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pictures", "--emoji", "emoji.npz", "--letters", "glyphs.npz"])
    load("pictures").main()
    for name, classes in (("emoji", 9), ("letters_by_class", 62), ("letters_by_font", 62)):
        config = yaml.safe_load((FOLDER.parent / f"configs/{name}.yaml").read_text())
        given = config["data"]["benchmark"]["init_args"]
        benchmark, source = from_arrays(**given), np.load(given["groups"])
        train, test = ([e.tensors() for e in stream] for stream in (benchmark.train_stream, benchmark.test_stream))
        assert len(train) == len(test) == 10 and len(benchmark.class_names) == classes
        rows = [np.concatenate([part.index.numpy() for part in parts]) for parts in (train, test)]
        assert not set(source[rows[0]]) & set(source[rows[1]]) and sum(map(len, rows)) == len(source)
