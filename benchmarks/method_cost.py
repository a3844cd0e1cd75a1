"""What the whole method costs: its training time against replay of random examples, and the share of the memory.

    python benchmarks/method_cost.py [--repeats 3] [FLAGS OF fit]

Split Fashion-MNIST as ``configs/split_fmnist.yaml`` says. Both sides are ours, with IVON: the full method, and
``configs/methods/replay.yaml`` (a random memory, replayed with its labels). They run in turn, each in a process of its
own; time is that of training and of the memory, without evaluation.
"""

from __future__ import annotations

import argparse
import statistics

from seeds import fit

CONFIG = ["--config", "configs/split_fmnist.yaml"]
FULL, RANDOM = "full method", "random replay"
SIDES = {FULL: CONFIG, RANDOM: [*CONFIG, "--config", "configs/methods/replay.yaml"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    args, rest = parser.parse_known_args()
    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    for seed in range(args.repeats):
        for side, flags in SIDES.items():
            results = fit([*flags, *rest], seed)
            seconds = results["seconds_training"] + results["seconds_memory"]
            runs[side].append({**results, "seconds": seconds, "share": results["seconds_memory"] / seconds})
        print(f"round {seed + 1} of {args.repeats}: " + ", ".join(f"{v[-1]['seconds']:.2f} s" for v in runs.values()))
    for side, made in runs.items():
        seconds, share = (statistics.median(run[key] for run in made) for key in ("seconds", "share"))
        accuracy = statistics.mean(run["average_accuracy"] for run in made)
        print(f"{side:14s} median {seconds:6.2f} s, {share:.0%} of it the memory; accuracy {accuracy:.4f}")
    ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(*runs.values(), strict=True))
    print(f"{FULL} / {RANDOM}: {ratio:.2f} (median over rounds)")


if __name__ == "__main__":
    main()
