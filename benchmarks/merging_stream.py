"""Merging as a way to learn a stream, against replay in as many bytes.

    python benchmarks/merging_stream.py --results benchmarks/results/merging_stream.jsonl [--table]

Two streams of Fashion-MNIST, of 2,000 images an experience, five epochs each: turned by 0, 36, 72, 108 and 144 degrees
(all ten classes in each), and two classes at a time. The first experience learns the base, and each other one an expert
from it, on its own images alone; after each, all experts are merged. Beside it: replay with the 200 images that merging
may have for its head, and with as many bytes as merging by Kronecker factors carries, which are more images than the
stream has; Bayes-duality with 200; plain training, and training on all at once. Adam at .001 everywhere (IVON by its
rule for Bayes-duality); nothing is tuned but ``pull``, on the validation data of a seed that is not shown. Runs are
kept in the results file; a second call goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bayesdual.comparison import Cell, Run, Store, made_by
from bayesdual.scenarios import fashion_mnist
from bayesdual.scenarios.benchmark import TensorBenchmark
from bayesdual.scenarios.domain import domain_benchmark, rotations_of
from bayesdual.scenarios.split import split_benchmark

MERGED = "bayesdual.strategies.baselines.merging.merged_experts"
WITH_MEMORY = f"{MERGED}_with_memory"
EACH, EXPERIENCES, EPOCHS, MEMORY, TUNING_SEED = 2000, 5, 5, 200, 0
PULLS = (0.003, 0.03, 0.3)
NETWORK = {
    "class_path": "bayesdual.models.MLP",
    "init_args": {"in_features": 784, "hidden": [256, 256], "n_classes": 10},
}


def turned(seed: int = 0, validation: float = 0.0) -> TensorBenchmark:
    """The same images in each experience, turned."""
    return domain_benchmark(_some(EACH, seed), rotations_of(EXPERIENCES, None), seed=seed, validation=validation)


def by_class(seed: int = 0, validation: float = 0.0) -> TensorBenchmark:
    """Two classes an experience."""
    return split_benchmark(_some(EACH * EXPERIENCES, seed), EXPERIENCES, seed=seed, validation=validation)


def _some(n: int, seed: int) -> Any:
    raw = fashion_mnist()
    rows = torch.randperm(len(raw.train_x), generator=torch.Generator().manual_seed(seed))[:n]
    return replace(raw, train_x=raw.train_x[rows], train_y=raw.train_y[rows])


STREAMS = {"turned": turned, "two classes at a time": by_class}


def baseline(stream: str, seed: int, name: str, evaluate_on: str = "test", **settings: Any) -> dict[str, Any]:
    """A run of one of ``bayesdual.strategies.baselines``."""
    from bayesdual.strategies import baselines

    common = {"lr": 1e-3, "optimizer": "torch.optim.Adam", "batch_size": 64, "epochs": EPOCHS}
    return baselines.learn(name, {**common, **settings}, NETWORK, _benchmark(stream, seed), evaluate_on, seed)


def ours(stream: str, seed: int) -> dict[str, Any]:
    """A run of Bayes-duality."""
    from bayesdual.comparison import learn
    from bayesdual.configuration import Setting, arguments, resolve

    values = {"data.benchmark": _benchmark(stream, seed), "data.epochs": EPOCHS, "seed_everything": seed}
    config = str(arguments.resources.files("bayesdual.configs") / "split_fmnist.yaml")
    return learn(resolve(config, *(Setting(key, value, "here") for key, value in values.items())))


def _benchmark(stream: str, seed: int) -> dict[str, Any]:
    path = f"merging_stream.{STREAMS[stream].__name__}"
    return {"class_path": path, "init_args": {"seed": seed, "validation": 0.1}}


def cell(stream: str, seed: int, title: str, **arguments: Any) -> Cell:
    learn = "ours" if title.startswith("bayesdual") else "baseline"
    spec = {"stream": stream, "seed": seed, **arguments}
    return Cell(f"{stream}, {title}, seed {seed}", {"learn": f"merging_stream.{learn}", "arguments": spec})


def cells(stream: str, seed: int, pull: float, memory_bytes: int) -> dict[str, Cell]:
    replayed = {"name": "Replay", "replay_batch_size": 64}
    merged = {
        "merging, average": {"name": MERGED, "method": "average"},
        "merging, RegMean": {"name": MERGED, "method": "regmean"},
        "merging, gradient matching": {"name": MERGED, "method": "gradient_matching"},
    }
    refitted = {
        f"{title}, head on {MEMORY}": {**given, "name": WITH_MEMORY, "memory_size": MEMORY, "pull": pull}
        for title, given in merged.items()
        if given["method"] != "average"
    }
    every = {
        "naive": {"name": "naive"},
        **merged,
        **refitted,
        f"Replay, {MEMORY}": {**replayed, "memory_size": MEMORY},
        "Replay, as many bytes as merging": {**replayed, "memory_bytes": memory_bytes},
        f"bayesdual, {MEMORY}": {},
        "joint": {"name": "joint"},
    }
    return {title: cell(stream, seed, title, **given) for title, given in every.items()}


def chosen_pull(stream: str, make: Any) -> float:
    """The pull of the highest accuracy of RegMean on validation data."""
    given: Any = {"name": WITH_MEMORY, "memory_size": MEMORY, "method": "regmean", "evaluate_on": "valid"}
    runs = {pull: make(cell(stream, TUNING_SEED, f"tried, pull {pull:g}", **given, pull=pull)) for pull in PULLS}
    return max(PULLS, key=lambda pull: accuracy(runs[pull]))


def accuracy(run: Run | None) -> float:
    return 0.0 if run is None or run.results is None else run.results["average_accuracy"]


def table(found: Mapping[str, list[Run]]) -> list[str]:
    lines = ["| | accuracy | each seed | carried |", "|---|---|---|---|"]
    for title, runs in found.items():
        values = [accuracy(run) for run in runs]
        carried = statistics.mean(sum((run.results or {})["memory_bytes"].values()) for run in runs) / 1e6
        each = " ".join(f"{value:.3f}" for value in values)
        spread = f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"
        lines.append(f"| {title} | {spread} | {each} | {carried:.2f} MB |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/merging_stream.jsonl"))
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=list(STREAMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--table", action="store_true", help="make no runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(args.results)
    latest = store.latest()
    make = (lambda c: latest.get(c.title)) if args.table else store.make
    for stream in args.streams:
        pull, found = chosen_pull(stream, make), {}
        for seed in args.seeds:
            first = make(cell(stream, seed, "merging, RegMean", name=MERGED, method="regmean"))
            carried = sum(first.results["memory_bytes"].values()) if first and first.results else 0
            for title, one in cells(stream, seed, pull, carried).items():
                if (run := make(one)) is not None and run.results:
                    found.setdefault(title, []).append(run)
        print(f"\n{stream}, seeds {args.seeds}, pull {pull:g}\n", *table(found), sep="\n")
        print(f"\nmade by {made_by(run for runs in found.values() for run in runs)}")


if __name__ == "__main__":
    main()
