"""How well a memory reconstructs the past: the error of the K-prior's gradient against the size of the memory.

    python benchmarks/kprior_error.py [--dataset digits|fashion_mnist] [--seeds 3] [--figures docs/figures]

Multi-class logistic regression in float64, class-incremental: the past is classes 0-4, the new examples are classes
5-9. The old solution minimises sum_past CE + delta/2 |theta|^2, the new one the same with the new examples. Of the past
only a memory is left, chosen by each of `bayesdual.selection`, class by class, its weights scaled so that those of a
class sum to its number of examples, as `bayesdual.memory` does. With the K-prior (Khan & Swaroop, NeurIPS 2021)

    K(theta) = sum_{z in M} w_z CE(softmax f_old(z), softmax f(z)) + delta/2 |theta - theta_old|^2

the error is |grad past - grad K| / |grad past|, in the mean over points of the straight path from the old solution to
the new one (without its start, where grad past is 0) and over seeds. With all examples in memory it is 0.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual import selection
from bayesdual.kprior import function_space_loss, weight_space_loss
from bayesdual.memory import fair_shares
from bayesdual.scenarios.data import digits, fashion_mnist, normalise
from bayesdual.selection import Candidates
from bayesdual.sensitivity import curvature, last_layer_variance, leverage

SIZES = (10, 20, 50, 100, 200, 500)
SELECTIONS = ("random", "herding", "coverage", "dual_coverage", "score_sampling", "top_score")
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


def choose(
    name: str, candidates: Candidates, y: Tensor, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows of the memory, and their weights, of all old classes."""
    select = getattr(selection, name)
    mine = [torch.nonzero(y == c).squeeze(1) for c in range(OLD)]
    rows, weights = [], []
    for members, n in zip(mine, fair_shares([len(m) for m in mine], size), strict=True):
        if n:
            own = Candidates(candidates.features[members], candidates.logits[members], candidates.scores[members])
            places, w = select(own, n, generator)
            rows.append(members[places])
            weights.append(w.double() * (len(members) / w.double().sum()))
    return torch.cat(rows), torch.cat(weights)


def errors(
    model: Logistic,
    x: Tensor,
    y: Tensor,
    old: Tensor,
    points: Sequence[Tensor],
    decay: float,
    name: str,
    size: int,
    seed: int,
) -> float:
    """Mean over points of the relative error of the gradient, for one memory."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        f_old = model.with_weights(old)(x)
        p = f_old.softmax(1)
        precision = curvature(p).T @ x.square() + decay, curvature(p).sum(0) + decay
        v = last_layer_variance(x, *(value.reciprocal() for value in precision))
    candidates = Candidates(x.float(), f_old.float(), leverage(p, v).float())
    rows, weights = choose(name, candidates, y, size, generator)
    mean = {"weight": old[:, :-1], "bias": old[:, -1]}
    flat = {key: torch.full_like(value, decay) for key, value in mean.items()}
    result = []
    for point in points:
        model.with_weights(point)
        truth = model.gradient(past_loss(model, x, y, decay))
        function_space = weights.sum() * function_space_loss(model(x[rows]), f_old[rows], weights)
        approximation = model.gradient(function_space + weight_space_loss(model, mean, flat))
        result.append(float((truth - approximation).norm() / truth.norm()))
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
    parser.add_argument("--dataset", choices=["digits", "fashion_mnist"], default="digits")
    parser.add_argument("--past", type=int, default=2000, help="past examples at most, and as many new ones")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decay", type=float, default=1.0, help="delta, the precision of the prior of each weight")
    parser.add_argument("--selections", nargs="+", default=SELECTIONS)
    parser.add_argument("--figures", type=Path, help="folder for the figure; none is written without it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    x, y, new_x, new_y = load(arguments.dataset, arguments.past)
    model = Logistic(x.shape[1], CLASSES).double()
    torch.manual_seed(0)
    model.with_weights(torch.zeros(CLASSES, x.shape[1] + 1, dtype=x.dtype))
    solutions, norms = [], []
    for inputs, labels in ((x, y), (torch.cat([x, new_x]), torch.cat([y, new_y]))):
        optimise(model, inputs, labels, arguments.decay)
        solutions.append(model.theta())
        norms.append(float(model.gradient(past_loss(model, x, y, arguments.decay)).norm()))
    old, new = solutions
    print(f"{arguments.dataset}: {len(x)} past and {len(new_x)} new examples, decay {arguments.decay}")
    print(f"norm of the past's gradient: {norms[0]:.1e} at the old solution, {norms[1]:.1e} at the new one")
    if norms[0] > GRADIENT * norms[1]:
        raise SystemExit("the old solution is no optimum: the error with all examples would not be 0.")
    points = [old + s * (new - old) for s in PATH]
    sizes = [size for size in SIZES if size < len(x)] + [len(x)]
    table: dict[str, dict[int, list[float]]] = {}
    print(f"{'':16s}" + "".join(f"{'all' if size == len(x) else size:>16}" for size in sizes), flush=True)
    for name in arguments.selections:
        table[name] = {
            size: [errors(model, x, y, old, points, arguments.decay, name, size, s) for s in range(arguments.seeds)]
            for size in sizes
        }
        cells = [
            f"{statistics.mean(v):.2e} ±{statistics.stdev(v):.0e}" if len(v) > 1 else f"{v[0]:.2e}"
            for v in table[name].values()
        ]
        print(f"{name:16s}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
    print(f"mean ± standard deviation over {arguments.seeds} seeds; {time.perf_counter() - began:.0f} s")
    if arguments.figures:
        plot(table, len(x), arguments.dataset, arguments.figures / f"kprior_{arguments.dataset}.png")


if __name__ == "__main__":
    main()
