"""What each part of the method earns: one part changed at a time, everything else equal.

    python benchmarks/ablation.py --results benchmarks/results/ablation.jsonl [--streams NAME ...] [--variants NAME ...]

The streams are class-incremental: Split Fashion-MNIST with a memory of 200 and one epoch (in 5 experiences of two
classes, in 10 of one, and with the other settings of ``gap_closure.py``), and Split Digits with a memory of 50 and of
100. Every run uses the configuration's own learning rate, whatever is changed, except the other optimizer's.

Every run is appended to the results file, and a run that stands there is not made again. ``--table`` runs nothing.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from gap_closure import REPLAY_BATCH, Runs, learn, mean_and_sd, quiet, read_config

ALGORITHM, OPTIMIZER = "model.algorithm.init_args.", "model.optimizer"
MEMORY, EXPERIENCES = ALGORITHM + "memory_size", "data.benchmark.init_args.n_experiences"
FMNIST, DIGITS = "configs/split_fmnist.yaml", "configs/split_digits.yaml"
LONG = {"data.epochs": 5, OPTIMIZER + ".init_args.lr": 0.05}

STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "1/200": (FMNIST, {MEMORY: 200}),
    "digits 50": (DIGITS, {MEMORY: 50}),
    "digits 100": (DIGITS, {MEMORY: 100}),
    "10 exps": (FMNIST, {MEMORY: 200, EXPERIENCES: 10}),
    "1/500": (FMNIST, {MEMORY: 500}),
    "5/200": (FMNIST, {MEMORY: 200} | LONG),
    "5/500": (FMNIST, {MEMORY: 500} | LONG),
}


def selection(name: str) -> dict[str, Any]:
    return {ALGORITHM + "selection": f"bayesdual.selection.{name}"}


def prior(class_path: str, **arguments: Any) -> dict[str, Any]:
    return {ALGORITHM + "weight_prior": {"class_path": class_path, "init_args": arguments}}


ADAM = {OPTIMIZER: {"class_path": "torch.optim.Adam", "init_args": {"lr": 3e-4}}}
NO_PRIOR = {ALGORITHM + "weight_prior": None}
LABELS = {ALGORITHM + "label_share": 1.0}
KRONECKER = "bayesdual.kronecker.KroneckerPrior"

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "random memory": selection("random"),
    "herding": selection("herding"),
    "coverage": selection("coverage"),
    "labels only": LABELS,
    "soft labels only": {ALGORITHM + "label_share": 0.0},
    "no weight prior": NO_PRIOR,
    "diagonal weight prior": prior("bayesdual.kprior.DiagonalPrior"),
    "weight prior c=10": prior(KRONECKER, strength=10.0),
    "weight prior c=10 T=10": prior(KRONECKER, strength=10.0, temperature=10.0),
    "Adam": ADAM,
    "plain replay": selection("random") | NO_PRIOR | LABELS,
    "plain replay, Adam": selection("random") | NO_PRIOR | LABELS | ADAM,
}


def run_of(stream: str, variant: str, seed: int) -> dict[str, Any]:
    """What names a run in the results file."""
    return {"stream": stream, "variant": variant, "seed": seed}


def make_run(runs: Runs, stream: str, variant: str, seed: int) -> dict[str, Any]:
    """Learns a stream with one part of the method changed."""
    path, settings = STREAMS[stream]
    settings = {ALGORITHM + "replay_batch_size": REPLAY_BATCH, **settings, **VARIANTS[variant]}
    return runs.make(run_of(stream, variant, seed), lambda: learn(read_config(path, settings), seed))


def table(runs: Runs, seeds: list[int]) -> str:
    """Mean and standard deviation of the final average accuracy, by variant and stream."""
    lines = [f"{'':24s}" + "".join(f"{stream:>19s}" for stream in STREAMS)]
    for variant in VARIANTS:
        cells = []
        for stream in STREAMS:
            made = [runs.get(run_of(stream, variant, seed)) for seed in seeds]
            values = [results["accuracy"] for results in made if results is not None]
            few = "" if len(values) in (0, len(seeds)) else f" [{len(values)}]"
            cells.append(mean_and_sd(values) + few)
        if set(cells) != {"-"}:
            lines.append(f"{variant:24s}" + "".join(f"{cell:>19s}" for cell in cells))
    lines.append("in brackets: number of runs, if fewer than the seeds")
    return "\n".join(lines)


def selection_gain(runs: Runs, seeds: list[int]) -> str:
    """The full method against the other selections, over all pairs of runs of the same stream and seed."""
    lines = []
    for other in ("random memory", "herding", "coverage"):
        pairs = [
            (runs.get(run_of(stream, "full", seed)), runs.get(run_of(stream, other, seed)))
            for stream in STREAMS
            for seed in seeds
        ]
        gains = [ours["accuracy"] - theirs["accuracy"] for ours, theirs in pairs if ours and theirs]
        if gains:
            error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
            lines.append(
                f"full - {other}: {statistics.mean(gains):+.4f} (standard error {error:.4f}, {len(gains)} pairs)"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="file of results, one JSON line a run")
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=list(STREAMS), metavar="NAME")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    args = parser.parse_args()
    quiet(args.threads)
    runs = Runs(args.results)
    for stream in [] if args.table else args.streams:
        for seed in args.seeds:
            for variant in args.variants:
                make_run(runs, stream, variant, seed)
    print(table(runs, args.seeds))
    print(selection_gain(runs, args.seeds))


if __name__ == "__main__":
    main()
