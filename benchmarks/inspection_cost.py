"""What TensorBoard costs: seconds of a whole run with nothing written to it, and with all.

    python benchmarks/inspection_cost.py [--repeats 5]

Split Fashion-MNIST as ``configs/split_fmnist.yaml`` has it, one epoch, each run in a process of its own, in turn: no
logger; the default, where figures may take a tenth of the time; figures after every experience. The figures that are
left beside the results as PNG are drawn in all three. Seconds are the wall time of learning, and of the process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from seeds import fit_into

CONFIG = "configs/split_fmnist.yaml"
SIDES = {
    "no TensorBoard": ["--trainer.logger", "false"],
    "default": [],
    "every figure": ["--board.share", "1000"],
}


def timed(options: list[str], seed: int) -> dict[str, float]:
    """One run: seconds of learning and of the process, and the megabytes that TensorBoard reads."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        results = fit_into(Path(folder), ["--config", CONFIG, "--threads", "1", *options], seed)
        process = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).rglob("events.out.tfevents.*"))
    return {"learning": results["seconds_total"], "process": process, "MB": size / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for seed in range(args.repeats):
        for name, options in SIDES.items():
            runs[name].append(timed(options, seed))
        print(f"round {seed + 1} of {args.repeats}: " + ", ".join(f"{r[-1]['learning']:.2f} s" for r in runs.values()))
    print(f"\n{'':16s} {'learning (median)':>18s} {'min':>6s} {'max':>6s} {'process':>8s} {'ratio':>6s} {'MB':>6s}")
    for name, of_one in runs.items():
        seconds = [run["learning"] for run in of_one]
        ratios = [run["process"] / plain["process"] for run, plain in zip(of_one, runs["no TensorBoard"], strict=True)]
        process, megabytes = (statistics.median(run[key] for run in of_one) for key in ("process", "MB"))
        print(
            f"{name:16s} {statistics.median(seconds):18.2f} {min(seconds):6.2f} {max(seconds):6.2f} {process:8.2f} "
            f"{statistics.median(ratios):6.3f} {megabytes:6.2f}"
        )
    print("ratio: of the process, to the run without TensorBoard of the same round, median")


if __name__ == "__main__":
    main()
