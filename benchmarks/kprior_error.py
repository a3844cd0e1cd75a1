"""How well a memory reconstructs the past: the error of the K-prior's gradient against the size of the memory.

    python benchmarks/kprior_error.py [--datasets digits fashion_mnist] [--seeds 5] [--figures docs/figures]
    python benchmarks/kprior_error.py --selections random_selection mymodule.my_selection

Multi-class logistic regression in float64, class-incremental: the past is classes 0-4, the new examples are classes
5-9. The old solution minimises sum_past CE + delta/2 |theta|^2, the new one the same with the new examples. Of the past
only a memory is left, chosen by a selection (of `bayesdual.memory`, or any dotted name), class by class, its weights
scaled so that those of a class sum to its number of examples, as `bayesdual.memory` does. "memory vectors" is what
`BayesDual` keeps by default: `dual_coverage`, and each exemplar made the mean of the examples around it, as
`bayesdual.memory.vectors` does. With the K-prior (Khan & Swaroop, NeurIPS 2021)

    K(theta) = sum_{z in M} w_z CE(softmax f_old(z), softmax f(z)) + delta/2 |theta - theta_old|^2

the error is |grad past - grad K| / |grad past|, in the mean over points of the straight path from the old solution to
the new one (without its start, where grad past is 0) and over seeds. With all examples in memory it is 0; "no memory"
leaves out the first term of K.
"""

from __future__ import annotations

import argparse
import pydoc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual.kprior import function_space_loss, weight_space_loss
from bayesdual.memory import Candidates, Selection, cell_means, dual_coverage, fair_shares
from bayesdual.posterior import curvature, last_layer_variance, leverage
from bayesdual.scenarios import digits, fashion_mnist
from bayesdual.stream import normalise

SIZES = (10, 20, 50, 100, 200, 500)
SELECTIONS = ("random_selection", "herding", "coverage", "dual_coverage", "score_sampling", "top_score")
VECTORS, NONE = "memory vectors", "no memory"
PATH = tuple(i / 10 for i in range(1, 11))
CLASSES, OLD = 10, 5
GRADIENT = 1e-7  # norm at the old solution, relative to that at the new one


def load(dataset: str, past: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs (N, D) and labels of at most ``past`` examples of old classes and as many of new ones."""
    raw = digits() if dataset == "digits" else fashion_mnist()
    parts = []
    for mine in (raw.train_y < OLD, raw.train_y >= OLD):
        rows = torch.nonzero(mine).squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:past]]
        x = normalise(raw.train_x[rows], raw.mean, raw.std).flatten(1).double()
        parts += [x, raw.train_y[rows]]
    return tuple(parts)


class Logistic(torch.nn.Linear):
    """A linear layer, the whole network; `with_weights` gives it another point of the path."""

    def with_weights(self, theta: Tensor) -> Logistic:
        with torch.no_grad():
            self.weight.copy_(theta[:, :-1])
            self.bias.copy_(theta[:, -1])
        return self

    def theta(self) -> Tensor:
        return torch.cat([self.weight, self.bias[:, None]], 1).detach().clone()

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(self.parameters()))])


def past_loss(model: Logistic, x: Tensor, y: Tensor, decay: float) -> Tensor:
    prior = model.weight.square().sum() + model.bias.square().sum()
    return F.cross_entropy(model(x), y, reduction="sum") + decay / 2 * prior


def optimise(model: Logistic, x: Tensor, y: Tensor, decay: float) -> None:
    """To the optimum, by L-BFGS and then Newton's method with conjugate gradients."""

    def closure() -> Tensor:
        model.zero_grad()
        loss = past_loss(model, x, y, decay)
        loss.backward()
        return loss

    torch.optim.LBFGS(
        model.parameters(), max_iter=2000, history_size=20, tolerance_change=0, line_search_fn="strong_wolfe"
    ).step(closure)
    phi = F.pad(x, (0, 1), value=1.0)
    for _ in range(10):
        p = model(x).softmax(1).detach()

        def curvature_times(direction: Tensor, p: Tensor = p) -> Tensor:
            moved = p * (phi @ direction.T)
            return (moved - p * moved.sum(1, keepdim=True)).T @ phi + decay * direction

        theta = model.theta()
        gradient = (p - F.one_hot(y, CLASSES)).T @ phi + decay * theta
        if gradient.norm() < 1e-9:
            break
        model.with_weights(theta - conjugate_gradients(curvature_times, gradient))


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, rounds: int = 500) -> Tensor:
    """Solves matrix(x) = b for a positive definite matrix."""
    x, r = torch.zeros_like(b), b.clone()
    p, square = r.clone(), r.square().sum()
    first = square
    for _ in range(rounds):
        moved = matrix(p)
        step = square / (p * moved).sum()
        x, r = x + step * p, r - step * moved
        square, before = r.square().sum(), square
        if square < 1e-20 * first:
            break
        p = r + square / before * p
    return x


def find_selection(name: str) -> Selection:
    """A selection by its name in `bayesdual.memory`, or by its dotted name."""
    found = pydoc.locate(name if "." in name else f"bayesdual.memory.{name}")
    if found is None:
        raise SystemExit(f"--selections: there is no {name}: give a name in bayesdual.memory or a dotted name.")
    return found


@dataclass
class Problem:
    """The old solution, its past, and the past's gradient along the path to the new solution."""

    model: Logistic
    x: Tensor
    y: Tensor
    old: Tensor
    points: list[Tensor]
    truth: list[Tensor]  # gradients of the past at the points
    candidates: Candidates
    decay: float


def pose(dataset: str, past: int, decay: float) -> Problem:
    """Solves for the old weights and the new ones."""
    x, y, new_x, new_y = load(dataset, past)
    model = Logistic(x.shape[1], CLASSES).double()
    model.with_weights(torch.zeros(CLASSES, x.shape[1] + 1, dtype=x.dtype))
    optimise(model, x, y, decay)
    old = model.theta()
    start = model.gradient(past_loss(model, x, y, decay)).norm()
    optimise(model, torch.cat([x, new_x]), torch.cat([y, new_y]), decay)
    points = [old + s * (model.theta() - old) for s in PATH]
    truth = [model.gradient(past_loss(model.with_weights(point), x, y, decay)) for point in points]
    print(f"{dataset}: {len(x)} past and {len(new_x)} new examples, decay {decay}")
    print(f"norm of the past's gradient: {start:.1e} at the old solution, {truth[-1].norm():.1e} at the new one")
    if start > GRADIENT * truth[-1].norm():
        raise SystemExit("the old solution is no optimum: the error with all examples would not be 0.")
    with torch.no_grad():
        f = model.with_weights(old)(x)
    p = f.softmax(1)
    precision = curvature(p).T @ x.square() + decay, curvature(p).sum(0) + decay
    v = last_layer_variance(x, *(value.reciprocal() for value in precision))
    return Problem(model, x, y, old, points, truth, Candidates(x.float(), f.float(), leverage(p, v).float()), decay)


Fill = Callable[[Problem, int, torch.Generator], tuple[Tensor, Tensor]]
"""A problem and a size to the memory of all old classes: inputs (M, D) and weights (M,)."""


def examples(select: Selection) -> Fill:
    """A memory of examples."""

    def fill(problem: Problem, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows, weights = zip(*chosen(problem, select, size, generator), strict=True)
        return problem.x[torch.cat(rows)], torch.cat(weights)

    return fill


def vectors(problem: Problem, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A memory of means of the examples around those chosen."""
    inputs, weights = [], []
    for rows, _ in chosen(problem, dual_coverage, size, generator):
        others = problem.y == problem.y[rows[0]]
        others[rows] = False
        x = torch.cat([problem.x[rows], problem.x[others]])
        merged, counts, _ = cell_means(x, torch.ones(len(x)), len(rows))
        inputs.append(merged.double())
        weights.append(counts.double())
    return torch.cat(inputs), torch.cat(weights)


def chosen(problem: Problem, select: Selection, size: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Rows of the examples of each old class that there is room for, and their weights."""
    mine = [torch.nonzero(problem.y == c).squeeze(1) for c in range(OLD)]
    result = []
    for members, n in zip(mine, fair_shares([len(m) for m in mine], size), strict=True):
        all_of_them = problem.candidates
        own = Candidates(all_of_them.features[members], all_of_them.logits[members], all_of_them.scores[members])
        places, w = select(own, n, generator)
        result.append((members[places], w.double() * (len(members) / w.double().sum())))
    return result


def error(problem: Problem, fill: Fill | None, size: int, seed: int) -> float:
    """Mean over points of the relative error of the gradient, for one memory."""
    model, old = problem.model, problem.old
    if fill is not None:
        x, weights = fill(problem, size, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            f_old = model.with_weights(old)(x)
    mean = {"weight": old[:, :-1], "bias": old[:, -1]}
    flat = {key: torch.full_like(value, problem.decay) for key, value in mean.items()}
    result = []
    for point, truth in zip(problem.points, problem.truth, strict=True):
        model.with_weights(point)
        prior = weight_space_loss(model, mean, flat)
        if fill is not None:
            prior = prior + weights.sum() * function_space_loss(model(x), f_old, weights)
        result.append(float((truth - model.gradient(prior)).norm() / truth.norm()))
    return statistics.mean(result)


def plot(table: dict[str, dict[int, list[float]]], past: int, dataset: str, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(6, 4.5))
    for name, row in table.items():
        sizes = [size for size in row if size < past]  # where all is in memory the error is 0
        means = [statistics.mean(row[size]) for size in sizes]
        spread = [statistics.stdev(row[size]) if len(row[size]) > 1 else 0.0 for size in sizes]
        axis.errorbar(sizes, means, spread, marker="o", ms=4, capsize=2, label=name)
    axis.set(xscale="log", yscale="log", xlabel="examples in memory", ylabel="|grad past - grad K| / |grad past|")
    axis.set_title(f"{dataset}, logistic regression, {past} past examples")
    axis.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=["digits", "fashion_mnist"], default=["digits"])
    parser.add_argument("--past", type=int, default=2000, help="past examples at most, and as many new ones")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--decay", type=float, default=1.0, help="delta, the precision of the prior of each weight")
    parser.add_argument("--selections", nargs="+", default=SELECTIONS)
    parser.add_argument("--figures", type=Path, help="folder for the figures; none is written without it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fills: dict[str, Fill | None] = {NONE: None}
    fills |= {name.rsplit(".", 1)[-1]: examples(find_selection(name)) for name in arguments.selections}
    fills[VECTORS] = vectors
    for dataset in arguments.datasets:
        began = time.perf_counter()
        problem = pose(dataset, arguments.past, arguments.decay)
        table = tabulate(problem, fills, arguments.seeds)
        print(f"mean ± standard deviation over {arguments.seeds} seeds; {time.perf_counter() - began:.0f} s\n")
        if arguments.figures:
            plot(table, len(problem.x), dataset, arguments.figures / f"kprior_{dataset}.png")


def tabulate(problem: Problem, fills: dict[str, Fill | None], seeds: int) -> dict[str, dict[int, list[float]]]:
    """Errors by memory and size, printed as they come."""
    total = len(problem.x)
    sizes = [size for size in SIZES if size < total] + [total]
    print(f"{'':18s}" + "".join(f"{'all' if size == total else size:>16}" for size in sizes), flush=True)
    table = {}
    for name, fill in fills.items():
        table[name] = {size: [error(problem, fill, size, seed) for seed in range(seeds)] for size in sizes}
        cells = [
            f"{statistics.mean(v):.2e} ±{statistics.stdev(v):.0e}" if len(v) > 1 else f"{v[0]:.2e}"
            for v in table[name].values()
        ]
        print(f"{name:18s}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
    return table


if __name__ == "__main__":
    main()
