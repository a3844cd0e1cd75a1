"""Runs ``fit`` with several seeds and prints mean and standard deviation of the results.

    python benchmarks/seeds.py --config configs/split_digits.yaml --seeds 0 1 2

More ``--config`` files and flags of ``fit`` are passed on. With ``--results`` every run is appended to that file, and
none of the same settings is made twice by the same code.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bayesdual.comparison import Cell, Store, made_by
from bayesdual.configuration import find_configs, read_settings

SHOWN = ("average_accuracy", "forgetting", "nll", "ece", "seconds_total")


def fit(arguments: list[str], seed: int) -> dict:
    """Runs ``python -m bayesdual fit`` in a process of its own and returns its results."""
    with tempfile.TemporaryDirectory() as folder:
        return fit_into(Path(folder), arguments, seed)


def fit_into(run_dir: Path, arguments: list[str], seed: int) -> dict:
    """The same, with a run directory that stays."""
    command = [sys.executable, "-m", "bayesdual", "fit", *arguments]
    command += ["--seed_everything", str(seed), "--run_dir", str(run_dir)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((run_dir / "results.json").read_text())


def cell(arguments: list[str], seed: int) -> Cell:
    """A run of ``fit``, known by all its settings and the code of the learner."""
    settings = {setting.key: setting.value for setting in read_settings(find_configs(arguments))}
    spec = {"learn": "seeds.fit", "host": "bayesdual.learner.Learner", "settings": settings}
    return Cell(f"seed {seed}", {**spec, "arguments": {"arguments": arguments, "seed": seed}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, help="file of results, one JSON line a run")
    args, rest = parser.parse_known_args()
    store = Store(args.results) if args.results else None
    runs = []
    for seed in args.seeds:
        results = fit(rest, seed) if store is None else store.make(cell(rest, seed)).results
        runs.append(results)
        print(f"seed {seed}: " + "  ".join(f"{name} {results[name]:.4f}" for name in SHOWN), flush=True)
    print(f"{'mean ± sd of ' + str(len(runs)) + ' seeds':24s}")
    for name in SHOWN:
        values = [run[name] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"  {name:18s} {statistics.mean(values):.4f} ± {spread:.4f}")
    if store is not None:
        cells = [cell(rest, seed) for seed in args.seeds]
        print(f"made by {made_by(store[cell] for cell in cells)}")
        if sentence := store.left_aside(cells):
            print(sentence)


if __name__ == "__main__":
    main()
