"""What TensorBoard costs: seconds of a whole run with nothing written to it, and with all.

    python benchmarks/inspection_cost.py [--repeats 5]

Split Fashion-MNIST as ``configs/split_fmnist.yaml`` has it, one epoch, each run in a process of its own, in turn: no
logger; the default, where figures may take a tenth of the time; figures after every experience. The figures that are
left beside the results as PNG are drawn in all three. Seconds are the wall time of learning, and of the process;
those of the processor are what a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import resource
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
    """One run: seconds of learning, of the process and of the processor, and the megabytes that TensorBoard reads."""
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), processor_seconds()
        results = fit_into(Path(folder), ["--config", CONFIG, "--threads", "1", *options], seed)
        process = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).rglob("events.out.tfevents.*"))
    used = processor_seconds() - before
    return {"learning": results["seconds_total"], "process": process, "CPU": used, "MB": size / 1e6}


def processor_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for seed in range(args.repeats):
        for name, options in SIDES.items():
            runs[name].append(timed(options, seed))
        print(f"round {seed + 1} of {args.repeats}: " + ", ".join(f"{r[-1]['learning']:.2f} s" for r in runs.values()))
    columns = (("min", 6), ("max", 6), ("process", 8), ("ratio", 6), ("CPU", 6), ("ratio", 6), ("MB", 6))
    print(f"\n{'':16s} {'learning (median)':>18s} " + " ".join(f"{name:>{width}s}" for name, width in columns))
    for name, of_one in runs.items():
        seconds = [run["learning"] for run in of_one]
        pairs = list(zip(of_one, runs["no TensorBoard"], strict=True))
        wall, cpu = (statistics.median(run[key] / plain[key] for run, plain in pairs) for key in ("process", "CPU"))
        process, used, megabytes = (statistics.median(run[key] for run in of_one) for key in ("process", "CPU", "MB"))
        print(
            f"{name:16s} {statistics.median(seconds):18.2f} {min(seconds):6.2f} {max(seconds):6.2f} {process:8.2f} "
            f"{wall:6.3f} {used:6.2f} {cpu:6.3f} {megabytes:6.2f}"
        )
    print("ratio: of what stands before it, to the run without TensorBoard of the same round, median")


if __name__ == "__main__":
    main()
