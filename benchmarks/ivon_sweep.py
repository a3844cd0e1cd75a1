"""How IVON's settings matter: one at a time, around a good choice, for an MLP on the digits.

    python benchmarks/ivon_sweep.py --figure docs/figures/ivon_sweep.png

Each setting is trained with several seeds, and evaluated on the test data at the mean of the posterior and averaged
over 32 samples. Prints a table and draws NLL and accuracy against each setting. Takes minutes.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import matplotlib
import torch
from ivon_vs_adamw import TASKS, evaluate_all, make_optimizer, train

from bayesdual.files import write_whole
from bayesdual.stream import normalise

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BASE = {"lr": 0.3, "ess": 1.0, "hess_init": 0.5, "weight_decay": 1e-4}  # ess in numbers of training examples
GRIDS = {
    "lr": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "ess": (0.1, 0.3, 1.0, 3.0, 10.0, 100.0),
    "hess_init": (0.02, 0.1, 0.5, 2.0, 10.0),
    "weight_decay": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
}
LABELS = {
    "lr": "learning rate",
    "ess": "ess / number of training examples",
    "hess_init": "hess_init",
    "weight_decay": "weight_decay",
}
KINDS = {"mean": "at the mean", "samples": "32 samples"}


def run(settings: dict[str, float], epochs: int, seed: int) -> dict[str, dict[str, float]]:
    task = TASKS["digits, MLP"]
    data = task.data()
    x, test_x = (normalise(images, data.mean, data.std) for images in (data.train_x, data.test_x))
    torch.manual_seed(seed)
    network = task.network()
    settings = {**settings, "ess": settings["ess"] * len(x)}
    optimizer = make_optimizer("IVON", network, **settings)
    try:
        train(network, optimizer, x, data.train_y, epochs, task.batch_size, seed)
    except FloatingPointError:  # diverged
        bad = {"accuracy": 0.1, "nll": float("nan"), "ece": float("nan")}
        return {"mean": bad, "samples": bad}
    return evaluate_all(network, optimizer, test_x, data.test_y)


def draw(results: dict[str, dict[float, list]], path: Path) -> None:
    figure, axes = plt.subplots(2, len(GRIDS), figsize=(13, 5.5), sharey="row", sharex="col")
    for column, (name, by_value) in zip(axes.T, results.items(), strict=True):
        for axis, metric, factor in zip(column, ("nll", "accuracy"), (1, 100), strict=True):
            for kind, label in KINDS.items():
                runs = [[factor * r[kind][metric] for r in by_value[v]] for v in GRIDS[name]]
                axis.plot(GRIDS[name], [statistics.mean(r) for r in runs], marker="o", label=label)
                axis.fill_between(GRIDS[name], [min(r) for r in runs], [max(r) for r in runs], alpha=0.2)
            axis.axvline(BASE[name], color="grey", linewidth=0.8, linestyle="--")
            axis.set_xscale("log")
            axis.grid(alpha=0.3)
        column[0].set_ylim(0, 0.5)
        column[1].set_ylim(90, 99)
        column[1].set_xlabel(LABELS[name])
    axes[0, 0].set_ylabel("test NLL")
    axes[1, 0].set_ylabel("test accuracy (%)")
    axes[0, 0].legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=110))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/ivon_sweep.png"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[tuple, list] = {}  # the base stands in every grid
    results: dict[str, dict[float, list]] = {}
    print(f"{'setting':12s} {'value':>8s} {'accuracy %':>11s} {'NLL':>8s} {'ECE %':>7s}   the same with 32 samples")
    for name, grid in GRIDS.items():
        results[name] = {}
        for value in grid:
            settings = {**BASE, name: value}
            key = tuple(settings.values())
            if key not in done:
                done[key] = [run(settings, args.epochs, seed) for seed in range(args.seeds)]
            results[name][value] = done[key]
            cells = []
            for kind in KINDS:
                accuracy, nll, ece = (
                    statistics.mean(r[kind][m] for r in done[key]) for m in ("accuracy", "nll", "ece")
                )
                cells.append(f"{100 * accuracy:11.2f} {nll:8.4f} {100 * ece:7.2f}")
            print(f"{name:12s} {value:8g} {'  '.join(cells)}", flush=True)
    draw(results, args.figure)
    print(f"wrote {args.figure}")


if __name__ == "__main__":
    main()
