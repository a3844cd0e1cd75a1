"""IVON's settings as ``IVON.suggest`` measures them, against the defaults and against tuned ones, on several problems.

    python benchmarks/ivon_suggest.py --results benchmarks/results/ivon_suggest.jsonl [--table]

    default      lr 0.1, the number of examples as ess, and IVON's defaults
    rule         bayesdual.ivon.ivon_settings, from the sizes alone
    suggested    IVON.suggest, from batches of the training data
    tuned        the best validation accuracy of five learning rates, and then of three hess_init; one seed
    AdamW        the best validation accuracy of four learning rates; one seed

All have the same batches and a cosine learning rate. Tuned on validation data, shown on test data, at the mean, with
the seeds in brackets. A run is known by its settings and appended to the results file; what is there is not made again,
but for suggestions where the code has changed. ``--table`` makes nothing, and shows what is there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from suggest_problems import PROBLEMS
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayesdual.comparison import Cell, Run, Store, made_by
from bayesdual.ivon import IVON, ivon_settings

Settings = dict[str, Any]
RATES = {"IVON": (0.03, 0.1, 0.3, 1.0, 3.0), "AdamW": (3e-4, 1e-3, 3e-3, 1e-2)}
HESSIANS = (0.1, 0.5, 2.5)
METHODS = ("default", "rule", "suggested", "tuned", "AdamW")
BETAS = [0.9, 0.9999]


def loss_of(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean loss of a batch."""
    return F.cross_entropy(network(batch[0]), batch[1])


def suggest(problem: str, seed: int) -> Settings:
    """What IVON.suggest says of a network before it is trained, to three digits."""
    setting = PROBLEMS[problem]
    x, y = setting.data().train
    torch.manual_seed(seed)
    network = setting.network()
    loader = DataLoader(TensorDataset(x, y), setting.batch, shuffle=True)
    settings = IVON.suggest(network, loss_of, loader, setting.epochs * math.ceil(len(x) / setting.batch))
    return {n: list(v) if isinstance(v, tuple) else float(f"{v:.3g}") for n, v in settings.items()}


def run(problem: str, optimizer: str, settings: Settings, seed: int, tuning: bool) -> dict[str, float]:
    """Trains once, and evaluates at the mean; on validation data when tuning."""
    setting = PROBLEMS[problem]
    data = setting.data()
    x, y = data.train
    torch.manual_seed(seed)
    network = setting.network()
    made = {"AdamW": torch.optim.AdamW, "IVON": IVON}[optimizer](network.parameters(), **settings)
    generator = torch.Generator().manual_seed(seed)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(made, setting.epochs * math.ceil(len(x) / setting.batch))
    try:
        for _ in range(setting.epochs):
            for rows in torch.randperm(len(x), generator=generator).split(setting.batch):

                def closure(rows: Tensor = rows) -> Tensor:
                    made.zero_grad()
                    loss = loss_of(network, (x[rows], y[rows]))
                    loss.backward()
                    return loss

                made.step(closure)
                scheduler.step()
    except FloatingPointError:  # diverged
        return {"accuracy": 0.0, "nll": math.inf}
    test_x, test_y = data.validation if tuning else data.test
    with torch.no_grad():
        logits = torch.cat([network.eval()(part) for part in test_x.split(1000)])
    accuracy = 100 * float((logits.argmax(1) == test_y).float().mean())
    return {"accuracy": accuracy, "nll": float(F.cross_entropy(logits, test_y))}


def cell(problem: str, optimizer: str, settings: Settings, seed: int, tuning: bool = False) -> Cell:
    """A run; see :func:`run`."""
    told = ", ".join(f"{name} {value}" for name, value in sorted(settings.items()))
    title = f"{problem}: {optimizer}, {told}, seed {seed}" + (", tuning" if tuning else "")
    arguments = {"problem": problem, "optimizer": optimizer, "settings": settings, "seed": seed, "tuning": tuning}
    return Cell(title, {"learn": "ivon_suggest.run", "arguments": arguments})


class Runs:
    """What was made, and what is made where it is missing."""

    def __init__(self, path: Path, make: bool) -> None:
        self.store, self.make = Store(path), make
        self.latest = self.store.latest()
        self.shown: list[Run] = []

    def find(self, cell: Cell, same_code: bool = False) -> dict[str, Any] | None:
        """The results of a cell; with ``same_code`` not those that other code made."""
        there = self.latest.get(cell.title)
        if self.make and (there is None or (same_code and cell not in self.store)):
            there = self.latest[cell.title] = self.store.make(cell)
            print(f"    {cell.title}: {there.results}", flush=True)
        if there is None:
            return None
        self.shown.append(there)
        return there.results


def best(runs: Runs, problem: str, optimizer: str, grid: list[Settings]) -> Settings:
    """The settings of a grid with the best validation accuracy; of equal ones the first."""
    results = [runs.find(cell(problem, optimizer, settings, 0, tuning=True)) for settings in grid]
    return grid[max(range(len(grid)), key=lambda i: (results[i] or {"accuracy": 0.0})["accuracy"])]


def settings_of(runs: Runs, method: str, problem: str, seed: int) -> Settings | None:
    """The settings by a method."""
    setting = PROBLEMS[problem]
    n = len(setting.data().train[0])
    ours: Callable[..., Settings] = partial(dict, ess=n, betas=BETAS)
    if method == "default":
        return {"lr": 0.1, "ess": n}
    if method == "rule":
        size = sum(p.numel() for p in setting.network().parameters())
        return ours(**ivon_settings(size, n, setting.epochs * math.ceil(n / setting.batch)) | {"ess": n})
    if method == "suggested":
        arguments = {"problem": problem, "seed": seed}
        title = f"{problem}: suggestion, seed {seed}"
        return runs.find(Cell(title, {"learn": "ivon_suggest.suggest", "arguments": arguments}), same_code=True)
    if method == "AdamW":
        return best(runs, problem, method, [{"lr": lr} for lr in RATES[method]])
    lr = best(runs, problem, "IVON", [ours(lr=lr, hess_init=0.5) for lr in RATES["IVON"]])["lr"]
    return best(runs, problem, "IVON", [ours(lr=lr, hess_init=h) for h in HESSIANS])


def table(runs: Runs, problems: list[str], methods: list[str], seeds: int) -> None:
    """Makes what is missing, and prints test accuracy and NLL."""
    for problem in problems:
        print(problem)
        for method in methods:
            results, told = [], ""
            for seed in range(seeds):
                settings = settings_of(runs, method, problem, seed)
                if settings is not None:
                    results.append(runs.find(cell(problem, "AdamW" if method == "AdamW" else "IVON", settings, seed)))
                    named = [(n, v) for n, v in settings.items() if n in ("lr", "hess_init", "clip_radius", "max_norm")]
                    told = told or ", ".join(f"{n} {v:.2g}" for n, v in named)
            got = [r for r in results if r]
            if got:
                accuracies, nll = [r["accuracy"] for r in got], sum(r["nll"] for r in got) / len(got)
                each = ", ".join(f"{a:.2f}" for a in accuracies)
                print(f"  {method:10s} {sum(accuracies) / len(got):6.2f} ({each})  NLL {nll:.3f}  {told}", flush=True)
    print(f"made by {made_by(runs.shown)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/ivon_suggest.jsonl"))
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table(Runs(args.results, not args.table), args.problems, args.methods, args.seeds)


if __name__ == "__main__":
    main()
