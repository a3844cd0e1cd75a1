"""Examples taken out of a posterior by `bayesdual.merging.remove`, against training without them.

    python benchmarks/unlearning.py [--activation tanh] [--seeds 3 4 5] [--left-out 200]

A network with 32 hidden units is trained on the digits of scikit-learn to the minimum of sum_i CE + delta / 2
|theta|^2, delta = 1, by L-BFGS; its curvature is measured there, as a diagonal and as Kronecker factors.

- Digits drawn at random are taken out one by one. The change of their own loss is compared with that of a network
  trained on from the minimum without them, by Spearman's rank correlation.
- Groups of digits are taken out at once: 30 at random, 100 at random, and 100 of one class. Compared with the network
  trained on without them are the network as it was, the corrected ones, and one trained for ten epochs more on what
  remains (Adam, learning rate 1e-4): the total variation of predicted probabilities on the test digits and on the
  digits taken out, and the share of equal predictions on the test digits.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import defaultdict

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from bayesdual.merging import remove
from bayesdual.posterior import Posterior, ggn_diagonal, kronecker_curvature
from bayesdual.scenarios import digits
from bayesdual.stream import normalise

DELTA = 1.0
PAIRS = 20_000
KINDS = ("diagonal", "Kronecker")
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def fitted(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> nn.Module:
    """At the minimum, or as near as so many steps of L-BFGS lead."""
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=steps, history_size=20, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        prior = sum(p.square().sum() for p in network.parameters())
        value = F.cross_entropy(network(x), y, reduction="sum") + DELTA / 2 * prior
        value.backward()
        return value

    optimizer.step(loss)
    return network.eval()


def tuned_on(network: nn.Module, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """Ten epochs of Adam."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    for _ in range(10):
        for rows in torch.randperm(len(x), generator=generator).split(32):
            optimizer.zero_grad()
            prior = sum(p.square().sum() for p in network.parameters())
            (F.cross_entropy(network(x[rows]), y[rows]) + DELTA / 2 / len(x) * prior).backward()
            optimizer.step()
    return network.eval()


def with_mean(network: nn.Module, posterior: Posterior) -> nn.Module:
    network = copy.deepcopy(network)
    network.load_state_dict(posterior.mean)
    return network


def loss_of(network: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(network(x), y))


@torch.no_grad()
def apart(one: nn.Module, other: nn.Module, x: Tensor) -> tuple[float, float]:
    """Mean total variation of the predicted probabilities, and share of equal predictions."""
    p, q = one(x).softmax(1), other(x).softmax(1)
    return float((p - q).abs().sum(1).mean() / 2), float((p.argmax(1) == q.argmax(1)).float().mean())


def run(
    activation: str, seed: int, left_out: int
) -> tuple[dict[str, float], dict[str, dict[str, tuple[float, float, float]]]]:
    """Rank correlations by kind of curvature; for each group and way, how far from the network trained without it."""
    began = time.perf_counter()
    raw = digits()
    x, test = (normalise(part, raw.mean, raw.std).flatten(1) for part in (raw.train_x, raw.test_x))
    y, every = raw.train_y, torch.arange(len(x))
    torch.manual_seed(seed)
    layers = nn.Linear(64, 32), ACTIVATIONS[activation](), nn.Linear(32, 10)
    network = fitted(nn.Sequential(*layers), x, y, 3000)
    generator = torch.Generator().manual_seed(seed)
    ones = torch.ones(len(x))
    h = ggn_diagonal(network, x, ones, pairs=PAIRS, generator=generator)
    posterior = Posterior({n: p.detach().clone() for n, p in network.named_parameters()}, h, DELTA)
    factors = {"diagonal": None, "Kronecker": kronecker_curvature(network, x, ones, pairs=PAIRS, generator=generator)}
    print(f"seed {seed}: {len(x)} digits learned in {time.perf_counter() - began:.0f} s", flush=True)

    order = torch.randperm(len(x), generator=generator)
    changes = defaultdict(list)
    for place, i in enumerate(order[:left_out].tolist()):
        one = x[i : i + 1], y[i : i + 1]
        before = loss_of(network, *one)
        again = fitted(copy.deepcopy(network), x[every != i], y[every != i], 100)
        changes["real"].append(loss_of(again, *one) - before)
        changes["its loss, nothing else"].append(before)
        for kind in KINDS:
            without = with_mean(network, remove(posterior, network, *one, factors[kind]))
            changes[kind].append(loss_of(without, *one) - before)
        if (place + 1) % 50 == 0:
            print(f"  {place + 1}/{left_out}  {time.perf_counter() - began:.0f} s", flush=True)
    ranks = {k: float(spearmanr(v, changes["real"]).statistic) for k, v in changes.items() if k != "real"}

    groups = {"30 at random": order[:30], "100 at random": order[:100], "100 of class 3": (y == 3).nonzero()[:100, 0]}
    distances: dict[str, dict[str, tuple[float, float, float]]] = {}
    for title, rows in groups.items():
        keep = ~torch.isin(every, rows)
        again = fitted(copy.deepcopy(network), x[keep], y[keep], 1000)
        ways = {"as it was": network, "ten epochs more": tuned_on(copy.deepcopy(network), x[keep], y[keep], seed)}
        for kind in KINDS:
            ways[f"corrected, {kind}"] = with_mean(network, remove(posterior, network, x[rows], y[rows], factors[kind]))
        distances[title] = {way: (*apart(one, again, test), apart(one, again, x[rows])[0]) for way, one in ways.items()}
    return ranks, distances


def spread(values: list[float], places: int = 3) -> str:
    deviation = f" ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{places}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--left-out", type=int, default=200)
    parser.add_argument("--activation", choices=ACTIVATIONS, default="tanh")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [run(args.activation, seed, args.left_out) for seed in args.seeds]
    print("\n| change of the loss by | rank correlation with the real one |\n|---|---|")
    for kind in runs[0][0]:
        print(f"| {kind} | {spread([ranks[kind] for ranks, _ in runs])} |")
    for title, ways in runs[0][1].items():
        print(f"\n{title}\n\n| | total variation, test | equal predictions, test | total variation, taken out |")
        print("|---|---|---|---|")
        for way in ways:
            columns = zip(*(distances[title][way] for _, distances in runs), strict=True)
            print(f"| {way} | " + " | ".join(spread(list(column), 4) for column in columns) + " |")


if __name__ == "__main__":
    main()
