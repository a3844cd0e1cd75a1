"""Runs ``fit`` with several seeds and prints mean and standard deviation of the results.

    python benchmarks/seeds.py --config configs/split_digits.yaml --seeds 0 1 2

More ``--config`` files and flags of ``fit`` are passed on. Every run is appended to ``--results`` (one JSON line each);
a run that stands there already, with the same arguments, is not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SHOWN = ("average_accuracy", "forgetting", "nll", "ece", "seconds_total")


def fit(arguments: list[str], seed: int) -> dict:
    """Runs ``python -m bayesdual fit`` in a process of its own and returns its results."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bayesdual", "fit", *arguments]
        command += ["--seed_everything", str(seed), "--run_dir", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(folder) / "results.json").read_text())


def known_runs(path: Path) -> dict[tuple[str, int], dict]:
    """The runs in a results file, by arguments and seed."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(line["arguments"], line["seed"]): line["results"] for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, help="file of results, one JSON line a run")
    args, rest = parser.parse_known_args()
    key = " ".join(rest)
    done = known_runs(args.results) if args.results else {}
    runs = []
    for seed in args.seeds:
        results = done.get((key, seed)) or fit(rest, seed)
        runs.append(results)
        if args.results and (key, seed) not in done:
            with args.results.open("a") as file:
                file.write(json.dumps({"arguments": key, "seed": seed, "results": results}) + "\n")
        print(f"seed {seed}: " + "  ".join(f"{name} {results[name]:.4f}" for name in SHOWN), flush=True)
    print(f"{'mean ± sd of ' + str(len(runs)) + ' seeds':24s}")
    for name in SHOWN:
        values = [run[name] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"  {name:18s} {statistics.mean(values):.4f} ± {spread:.4f}")


if __name__ == "__main__":
    main()
