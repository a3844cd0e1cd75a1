"""FROMP's setting: function regularisation on memorable points, task-incremental, top lambda against random.

    python benchmarks/fromp.py --results benchmarks/results/fromp.jsonl [--variants NAME ...] [--table]

Split Fashion-MNIST as ``configs/task_split_fmnist.yaml`` says: 5 tasks of 2 classes, 40 points a task (20 a class),
an MLP 784-256-256-10 whose logits are masked to the task's classes, and soft labels only (the function-space term).
Pan et al., "Continual deep learning by functional regularisation of memorable past", NeurIPS 2020, keep the points of
highest lambda = sum_c p_c (1 - p_c); their regulariser is a Gaussian process's over such points, ours is the K-prior's,
without their kernel. A variant is an optimizer, what holds the past, and which points are kept:

    naive               nothing is kept
    random              function space on points drawn at random
    top lambda          function space on FROMP's points
    top leverage        function space on the points of highest leverage sum_c lambda_c v_c under IVON's posterior
    ... and prior       the same with the Kronecker-factored prior of the weights
    joint               all tasks at once, by Adam, with as many epochs (upper bound)

The learning rate of each variant is what is best for it on a tenth of the training data, left out with seed 0; then
the seeds run on all training data. What counts is the mean over tasks of the test accuracy after the last task. A lead
is tested by the exact sign-flip test over seeds (``bayesdual.comparison``). Every run is appended to the results file,
and none is made twice by the same code. ``--table`` runs nothing, and shows the last run of each kind, whatever code
made it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual.comparison import Cell, Run, Store, be_quiet, learn, made_by, objects_of, said_p, sign_flip_p
from bayesdual.configuration import Setting, resolve
from bayesdual.memory import IMPOSSIBLE, Candidates
from bayesdual.posterior import curvature
from bayesdual.stream import normalise, task_classes

CONFIG = "configs/task_split_fmnist.yaml"
VALIDATION = 0.1
ALGORITHM, OPTIMIZER = "model.algorithm.init_args.", "model.optimizer"
GRIDS = {"Adam": (1e-4, 3e-4, 1e-3), "IVON": (0.05, 0.1, 0.2)}
JOINT = "joint, Adam"


def top_lambda(candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The n points of highest sum_c p_c (1 - p_c), whatever the posterior says of them; equal weights."""
    rows = curvature(candidates.logits.softmax(1)).sum(1).argsort(descending=True, stable=True)[:n]
    return rows, torch.ones(len(rows))


NAIVE = {ALGORITHM + "memory_size": 0}
KEEPING = {
    "random": {ALGORITHM + "selection": "bayesdual.memory.random_selection"},
    "top lambda": {ALGORITHM + "selection": "fromp.top_lambda"},
    "top leverage": {ALGORITHM + "selection": "bayesdual.memory.top_score"},
}
PRIOR = {ALGORITHM + "weight_prior": {"class_path": "bayesdual.kprior.KroneckerPrior"}}


def variants() -> dict[str, dict[str, Any]]:
    """The settings of each variant, by its name."""
    result: dict[str, dict[str, Any]] = {}
    for optimizer in GRIDS:
        result[f"naive, {optimizer}"] = NAIVE
        for prior, settings in {"": {}, " and prior": PRIOR}.items():
            for keeping, selection in KEEPING.items():
                if optimizer == "IVON" or keeping != "top leverage":  # leverage needs a posterior
                    result[f"{keeping}{prior}, {optimizer}"] = selection | settings
    return result | {JOINT: {}}


VARIANTS = variants()


def optimizer_of(variant: str) -> str:
    return variant.rsplit(", ", 1)[1]


def title(variant: str, lr: float, seed: int, evaluate_on: str) -> str:
    """What a run is called in the results file."""
    return f"{variant}, lr {lr:g}, seed {seed}, {evaluate_on}"


def cell(variant: str, lr: float, seed: int, evaluate_on: str) -> Cell:
    """A run of a variant: on all training data, or for "valid" on 90% of it, to evaluate on the rest."""
    settings = VARIANTS[variant] | {"seed_everything": seed, "data.evaluate_on": evaluate_on}
    if evaluate_on == "valid":
        settings["data.benchmark.init_args.validation"] = VALIDATION
    if optimizer_of(variant) == "Adam":
        settings[OPTIMIZER] = {"class_path": "torch.optim.Adam", "init_args": {"lr": lr}}
    else:
        settings[f"{OPTIMIZER}.init_args.lr"] = lr
    config = resolve(CONFIG, *(Setting(key, value, variant) for key, value in settings.items()))
    function = "fromp.learn_jointly" if variant == JOINT else "fromp.learn_in_turn"
    return Cell(title(variant, lr, seed, evaluate_on), {"learn": function, "arguments": {"config": config}})


def learn_in_turn(config: dict[str, Any]) -> dict[str, Any]:
    """Learns the tasks of a resolved configuration one after the other."""
    results = learn(config)
    return {"accuracy": results["average_accuracy"], "forgetting": results["forgetting"]}


def learn_jointly(config: dict[str, Any]) -> dict[str, Any]:
    """Learns all tasks of a resolved configuration at once, by Adam; the learning rate falls linearly."""
    objects = objects_of(config)
    network, stream = objects.model.network, objects.data
    mask = task_classes(stream.stream("train"), config["model"]["network"]["init_args"]["n_classes"])

    def tensors(experiences: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [(normalise(d.x, d.mean, d.std), d.y, d.tasks) for d in (e.tensors() for e in experiences)]

    def logits(x: Tensor, t: Tensor) -> Tensor:
        return network(x).masked_fill(~mask[t], IMPOSSIBLE)

    x, y, t = (torch.cat(part) for part in zip(*tensors(stream.stream("train")), strict=True))
    optimizer = torch.optim.Adam(network.parameters(), config["model"]["optimizer"]["init_args"]["lr"])
    batches = [rows for _ in range(stream.epochs) for rows in torch.randperm(len(y)).split(stream.batch_size)]
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, objects.model.lr_end, len(batches))
    for rows in batches:
        optimizer.zero_grad()
        F.cross_entropy(logits(x[rows], t[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        accuracies = [
            float((logits(x, t).argmax(1) == y).float().mean())
            for x, y, t in tensors(stream.stream(stream.evaluate_on))
        ]
    return {"accuracy": statistics.mean(accuracies)}


def learning_rate(runs: Mapping[str, Run], variant: str) -> float | None:
    """The learning rate that is best on the validation stream; None if not all were tried."""
    tried = {lr: runs.get(title(variant, lr, 0, "valid")) for lr in GRIDS[optimizer_of(variant)]}
    accuracies = {lr: run.results["accuracy"] for lr, run in tried.items() if run and run.results}
    return max(accuracies, key=lambda lr: accuracies[lr]) if len(accuracies) == len(tried) else None


def table(runs: Mapping[str, Run], seeds: list[int]) -> str:
    """Mean and standard deviation of the final accuracy over tasks, and of forgetting, in percent, by variant.

    Args:
        runs: By title.
        seeds: Those to tabulate.
    """
    lines = [f"{'':30s}{'accuracy %':>16s}{'forgetting %':>16s}{'rate':>8s}"]
    shown: list[Run] = []
    accuracies: dict[str, dict[int, float]] = {}
    for variant in VARIANTS:
        lr = learning_rate(runs, variant)
        found = {seed: runs.get(title(variant, lr, seed, "test")) for seed in seeds} if lr else {}
        done = {seed: run.results for seed, run in found.items() if run and run.results}
        if not done:
            continue
        shown += [run for run in found.values() if run]
        accuracies[variant] = {seed: results["accuracy"] for seed, results in done.items()}
        cells = [percent([r[name] for r in done.values() if name in r]) for name in ("accuracy", "forgetting")]
        few = "" if len(done) == len(seeds) else f" [{len(done)} of {len(seeds)} seeds]"
        lines.append(f"{variant:30s}{cells[0]:>16s}{cells[1]:>16s}{lr:>8g}{few}")
    for variant, ours in accuracies.items():
        other = variant.replace("top lambda", "random").replace("top leverage", "random")
        pairs = sorted(ours.keys() & accuracies.get(other, {}).keys())
        if other != variant and len(pairs) > 1:
            gains = [100 * (ours[seed] - accuracies[other][seed]) for seed in pairs]
            by_seed, p = " ".join(f"{gain:+.2f}" for gain in gains), said_p(sign_flip_p(gains), len(gains))
            lines.append(f"{variant} - random: {statistics.mean(gains):+.2f} ({by_seed}), {p}")
    return "\n".join([*lines, f"made by {made_by(shown)}"])


def percent(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="file of results, one JSON line a run")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    args = parser.parse_args()
    be_quiet()
    torch.set_num_threads(args.threads)
    store = Store(args.results)
    print(table(store.latest() if args.table else make(store, args.variants, args.seeds), args.seeds))


def make(store: Store, variants: list[str], seeds: list[int]) -> dict[str, Run]:
    """Makes the runs that are not there, first those that choose the learning rates; returns all of them by title."""
    runs: dict[str, Run] = {}
    cells: list[Cell] = []

    def add(cell: Cell) -> None:
        new = cell not in store
        run = runs[cell.title] = store.make(cell)
        cells.append(cell)
        if new and run.results:
            print(f"{run.title}: {run.results['accuracy']:.4f}", flush=True)

    for variant in variants:
        for lr in GRIDS[optimizer_of(variant)]:
            add(cell(variant, lr, 0, "valid"))
    for seed in seeds:
        for variant in variants:
            if (lr := learning_rate(runs, variant)) is not None:
                add(cell(variant, lr, seed, "test"))
    if sentence := store.left_aside(cells):
        print(sentence)
    return runs


if __name__ == "__main__":
    main()
