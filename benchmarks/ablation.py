"""What each part of the method earns: one part changed at a time, everything else equal.

    python benchmarks/ablation.py [--folder FOLDER] [--workers N]

The same as ``python -m bayesdual compare --config configs/compare_ablation.yaml``, which says what is compared. Below
its tables comes what the memory earns, over all pairs of runs of the same benchmark and seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bayesdual.__main__ import main as bayesdual
from bayesdual.comparison import sign_flip_p
from bayesdual.configuration import find_configs, read_config

CONFIG = find_configs(["--config", "configs/compare_ablation.yaml"])[1]
FULL, OTHERS = "full", ("random, as they are", "herding, as they are")


def selection_gain(runs: list[dict[str, Any]]) -> str:
    """The full method against memories of real examples: mean difference of accuracy, and the exact sign-flip test."""
    made = [run for run in runs if run["results"]]
    accuracy: dict[str, dict[tuple[str, int], float]] = {method: {} for method in (FULL, *OTHERS)}
    for run in made:
        accuracy.setdefault(run["method"], {})[run["benchmark"], run["seed"]] = run["results"]["average_accuracy"]
    lines = []
    for other in OTHERS:
        gains = [a - accuracy[other][place] for place, a in accuracy[FULL].items() if place in accuracy[other]]
        if gains:
            mean, p = statistics.mean(gains), sign_flip_p(gains)
            lines.append(f"{FULL} - {other}: {mean:+.4f} ({len(gains)} pairs, exact sign-flip test: p = {p:.3g})")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=read_config(CONFIG)["folder"], help="where to write to")
    args, rest = parser.parse_known_args()
    status = bayesdual(["compare", "--config", CONFIG, "--folder", args.folder, *rest])
    results = Path(args.folder) / "results.json"
    if status == 0 and results.exists():
        print(selection_gain(json.loads(results.read_text())["runs"]))
    return status


if __name__ == "__main__":
    sys.exit(main())
