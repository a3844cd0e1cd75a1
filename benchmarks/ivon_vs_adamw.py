"""IVON against AdamW: accuracy, NLL and ECE on the test data of digits and Fashion-MNIST.

    python benchmarks/ivon_vs_adamw.py --results benchmarks/results/ivon_vs_adamw.jsonl [--quick] [--table]

Both train the same networks on the same batches, with a cosine learning rate. The learning rate of each is that of its
grid with the least NLL on a tenth of the training data, with seed 0; then the seeds run on all training data. IVON is
evaluated at the mean of its posterior, and averaged over 32 samples; it has ess = the number of training examples.
Every run is appended to the results file, and none is made twice by the same code. ``--table`` runs nothing, and shows
the last run of each kind, whatever code made it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.comparison import Cell, Run, Store, made_by
from bayesdual.ivon import IVON
from bayesdual.measures import StreamMetric
from bayesdual.models import MLP, LeNet
from bayesdual.posterior import Posterior
from bayesdual.scenarios import RawDataset, digits, fashion_mnist, stratified_split
from bayesdual.stream import normalise

SAMPLES = 32
GRIDS = {"AdamW": (3e-4, 1e-3, 3e-3, 1e-2), "IVON": (0.03, 0.1, 0.3, 1.0)}
LONG_GRIDS = {"AdamW": (1e-4, 3e-4, 1e-3, 3e-3), "IVON": GRIDS["IVON"]}
WIDE_GRIDS = {"AdamW": (1e-4, *GRIDS["AdamW"], 3e-2), "IVON": (0.01, *GRIDS["IVON"], 3.0)}


@dataclass(frozen=True)
class Task:
    """A dataset, a network, how long it is trained, and with which learning rates."""

    data: Callable[[], RawDataset]
    network: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    hess_init: float
    grids: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: GRIDS)


TASKS = {
    "digits, MLP": Task(digits, partial(MLP, 64, (256, 256)), 60, 64, 0.5, WIDE_GRIDS),
    "Fashion-MNIST, MLP": Task(fashion_mnist, partial(MLP, 784, (256, 256)), 30, 128, 0.1, LONG_GRIDS),
    "Fashion-MNIST, LeNet": Task(fashion_mnist, LeNet, 20, 128, 0.1),
}


def make_optimizer(name: str, network: nn.Module, lr: float, ess: int, hess_init: float, **settings: Any):
    if name == "AdamW":
        return torch.optim.AdamW(network.parameters(), lr=lr)
    settings = {"ess": ess, "hess_init": hess_init, "betas": (0.9, 0.9999), **settings}
    return IVON(network.parameters(), lr=lr, **settings)


def train(
    network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, epochs: int, batch_size: int, seed: int
) -> None:
    """Trains with a cosine learning rate; batches depend on the seed only."""
    generator = torch.Generator().manual_seed(seed)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(len(x) / batch_size))
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):

            def closure(rows: Tensor = rows) -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(network(x[rows]), y[rows])
                loss.backward()
                return loss

            optimizer.step(closure)
            scheduler.step()


@torch.no_grad()
def evaluate(predict: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy, NLL and ECE of predicted probabilities."""
    metric = StreamMetric(1)
    for rows in torch.arange(len(x)).split(1000):
        metric.update(predict(x[rows]), y[rows], 0)
    result = metric.compute()
    return {"accuracy": result["accuracy"][0], "nll": result["nll"], "ece": result["ece"]}


def evaluate_all(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> dict[str, dict]:
    """At the mean, and with IVON also averaged over samples."""
    network.eval()
    results = {"mean": evaluate(lambda z: network(z).softmax(1), x, y)}
    if isinstance(optimizer, IVON):
        posterior = Posterior.from_optimizer(network, optimizer)
        generator = torch.Generator().manual_seed(0)
        results["samples"] = evaluate(lambda z: posterior.predict(network, z, SAMPLES, generator), x, y)
    return results


def run(task: str, optimizer: str, lr: float, seed: int, tuning: bool, epochs: int) -> dict[str, Any]:
    """Trains and evaluates once; when tuning, on a tenth of the training data."""
    setting = TASKS[task]
    data = setting.data()
    x, y = normalise(data.train_x, data.mean, data.std), data.train_y
    test_x, test_y = normalise(data.test_x, data.mean, data.std), data.test_y
    if tuning:
        rest, held_out = (torch.from_numpy(rows) for rows in stratified_split(y, 0.1, seed=0))
        x, y, test_x, test_y = x[rest], y[rest], x[held_out], y[held_out]
    torch.manual_seed(seed)
    network = setting.network()
    made = make_optimizer(optimizer, network, lr, len(x), setting.hess_init)
    start = time.perf_counter()
    train(network, made, x, y, epochs, setting.batch_size, seed)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, **evaluate_all(network, made, test_x, test_y)}


def cell(task: str, optimizer: str, lr: float, seed: int, tuning: bool, epochs: int) -> Cell:
    """A run; see :func:`run`."""
    title = f"{task}, {epochs} epochs, {optimizer}, lr {lr:g}, seed {seed}" + (", tuning" if tuning else "")
    arguments = {"task": task, "optimizer": optimizer, "lr": lr, "seed": seed, "tuning": tuning, "epochs": epochs}
    return Cell(title, {"learn": "ivon_vs_adamw.run", "arguments": arguments})


def table(find: Callable[[Cell], Run | None], seeds: int, tasks: list[str], epochs: dict[str, int]) -> None:
    """Prints mean and standard deviation over the seeds.

    Args:
        find: The run of a cell, or None if it was not made.
        seeds: Number of seeds.
        tasks: Names of ``TASKS``.
        epochs: Of each.
    """
    rows = []
    shown: list[Run] = []
    for task in tasks:
        for name, grid in TASKS[task].grids.items():

            def result(lr: float, seed: int, tuning: bool, task: str = task, name: str = name) -> dict[str, Any] | None:
                run = find(cell(task, name, lr, seed, tuning, epochs[task]))
                if run is not None:
                    shown.append(run)
                return run and run.results

            tuned = {lr: r["samples" if name == "IVON" else "mean"]["nll"] for lr in grid if (r := result(lr, 0, True))}
            if len(tuned) < len(grid):
                continue
            lr = min(tuned, key=tuned.get)
            results = [r for seed in range(seeds) if (r := result(lr, seed, False))]
            for kind in ("mean", "samples") if name == "IVON" else ("mean",):
                if results:
                    rows.append((task, epochs[task], name, kind, lr, [r[kind] for r in results], results))
    print(f"\n{'':28s} {'lr':>6s} {'accuracy %':>14s} {'NLL':>15s} {'ECE %':>13s} {'seconds':>8s}  runs")
    for task, n_epochs, name, kind, lr, metrics, results in rows:
        label = {"AdamW": "AdamW", "mean": "IVON, mean", "samples": f"IVON, {SAMPLES} samples"}
        if name == "AdamW":
            print(f"{task}, {n_epochs} epochs")
        cells = []
        for key, factor, digits_shown in (("accuracy", 100, 2), ("nll", 1, 4), ("ece", 100, 2)):
            values = [factor * m[key] for m in metrics]
            sd = statistics.stdev(values) if len(values) > 1 else math.nan
            cells.append(f"{statistics.mean(values):.{digits_shown}f} ± {sd:.{digits_shown}f}")
        seconds = statistics.median(r["seconds"] for r in results)
        print(
            f"  {label[name if name == 'AdamW' else kind]:26s} {lr:6g} {cells[0]:>14s} {cells[1]:>15s} {cells[2]:>13s} "
            f"{seconds:8.1f}  {len(results)}"
        )
    print(f"made by {made_by(shown)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/ivon_vs_adamw.jsonl"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="instead of those of the tasks")
    parser.add_argument("--quick", action="store_true", help="digits only")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tasks = ["digits, MLP"] if args.quick else args.tasks
    epochs = {task: args.epochs or TASKS[task].epochs for task in tasks}
    store = Store(args.results)
    if args.table:
        latest = store.latest()
        table(lambda cell: latest.get(cell.title), args.seeds, tasks, epochs)
    else:
        used: list[Cell] = []
        table(partial(make, store, used), args.seeds, tasks, epochs)
        print(store.left_aside(used) or "")


def make(store: Store, used: list[Cell], cell: Cell) -> Run:
    """The run of a cell, made and said if it is not there; the cell is added to those used."""
    used.append(cell)
    new = cell not in store
    run = store.make(cell)
    if new:
        print(f"{run.title}: {run.results}", flush=True)
    return run


if __name__ == "__main__":
    main()
