"""Conformal prediction of a real target: does it cover, and how long are the sets?

    python benchmarks/conformal.py --results benchmarks/results/conformal.jsonl [--data bimodal diabetes] [--table]

Six data: three that are drawn (600 examples to learn from and 1,000 to test on; their noise grows, has two modes, or
is skewed), and three tables that packages ship: scikit-learn's diabetes, and of mlxtend's the cars (miles a gallon) and
the houses of Boston's tracts (less the column that counts people by colour), a fifth of each to test on. Each is split
20 times. Every method has the same networks, folds, epochs and calibration part, and is stopped by the folds that it
does not see (``bayesdual.conformal.ConformalRegressor``); nothing is chosen by test data. *best* is for each split the
one of the four by bins whose sets are the shortest on these folds.

Coverage is meant to be .9; a mean over splits is held against it in standard errors, the splits' standard deviation
over the root of their number (on tables splits share examples, so that this is a guide there). Every run is appended to
the results file, and none is made twice by the same code; ``--table`` shows the last of each, and makes none.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

from bayesdual.comparison import Cell, Run, Store, made_by
from bayesdual.conformal import ConformalRegressor, covered, lengths

ALPHA = 0.1
BINNED = ("published", "two-hot", "blurred", "coarse")
METHODS = (*BINNED, "split", "normalised", "cqr")
SHOWN = ("best", *METHODS)
LEARN, TEST = 600, 1000  # examples of what is drawn

Examples = tuple[np.ndarray, np.ndarray]


def heteroscedastic(draw: np.random.Generator, n: int) -> Examples:
    x = draw.uniform(0, 4, n)
    return x[:, None], np.sin(2 * x) + (0.1 + 0.3 * x) * draw.normal(size=n)


def bimodal(draw: np.random.Generator, n: int) -> Examples:
    x = draw.uniform(0, 4, n)
    return x[:, None], draw.choice([-1, 1], n) * (1 + 0.5 * x) + 0.2 * draw.normal(size=n)


def skewed(draw: np.random.Generator, n: int) -> Examples:
    x = draw.uniform(0, 4, n)
    return x[:, None], np.sin(2 * x) + (0.2 + 0.3 * x) * draw.exponential(size=n)


def diabetes() -> Examples:
    return load_diabetes(return_X_y=True)


def cars() -> Examples:
    from mlxtend.data import autompg_data

    x, y = autompg_data()
    return x[:, :7], y  # the last column is the name


def houses() -> Examples:
    from mlxtend.data import boston_housing_data

    x, y = boston_housing_data()
    return np.delete(x, 11, 1), y


DRAWN = {"heteroscedastic": heteroscedastic, "bimodal": bimodal, "skewed": skewed}
TABLES: dict[str, Callable[[], Examples]] = {"diabetes": diabetes, "cars": cars, "houses": houses}


def split(data: str, seed: int) -> tuple[Examples, Examples]:
    """Examples to learn from, and to test on."""
    draw = np.random.default_rng(seed)
    if data in DRAWN:
        return DRAWN[data](draw, LEARN), DRAWN[data](draw, TEST)
    x, y = TABLES[data]()
    order = draw.permutation(len(y))
    test, rest = np.split(order, [len(y) // 5])
    return (x[rest], y[rest]), (x[test], y[test])


def run(data: str, method: str, seed: int, settings: Mapping[str, Any]) -> dict[str, float]:
    """Coverage and mean length of the test examples' sets, and the mean length on folds not seen."""
    (x, y), (test_x, test_y) = split(data, seed)
    start = time.perf_counter()
    regressor = ConformalRegressor(method, alpha=ALPHA, random_state=seed, **settings).fit(x, y)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    sets = regressor.predict_set(test_x)
    return {
        "coverage": statistics.fmean(covered(sets, test_y)),
        "length": statistics.fmean(lengths(sets)),
        "length_unseen": regressor.lengths_[method],
        "intervals": statistics.fmean(map(len, sets)),
        "seconds": seconds,
    }


def cell(data: str, method: str, seed: int, settings: Mapping[str, Any]) -> Cell:
    """A run; see :func:`run`."""
    changed = "".join(f", {key} {value}" for key, value in settings.items())
    arguments = {"data": data, "method": method, "seed": seed, "settings": dict(settings)}
    return Cell(f"{data}, {method}, split {seed}{changed}", {"learn": "conformal.run", "arguments": arguments})


def chosen(of_split: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
    """Of the four by bins, the results of the one whose sets are the shortest on folds not seen."""
    return min((of_split[loss] for loss in BINNED), key=lambda results: results["length_unseen"])


def table(results: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]]) -> list[str]:
    """The lines of a table.

    Args:
        results: For each data, for each split, the results by method.
    """
    lines = [f"| data | method | coverage | from {1 - ALPHA:g}, in s.e. | length | of CQR's | intervals |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for data, splits in results.items():
        cqr = statistics.fmean(of_split["cqr"]["length"] for of_split in splits)
        for method in SHOWN:
            runs = [chosen(of_split) if method == "best" else of_split[method] for of_split in splits]
            coverage = [r["coverage"] for r in runs]
            mean, error = statistics.fmean(coverage), statistics.stdev(coverage) / math.sqrt(len(runs))
            length, parts = (statistics.fmean(r[key] for r in runs) for key in ("length", "intervals"))
            off = (mean - 1 + ALPHA) / error if error else 0.0
            lines.append(
                f"| {data} | {method} | {mean:.3f} ± {error:.3f} | {off:+.1f} | {length:.4g} | {length / cqr:.2f} "
                f"| {parts:.2f} |"
            )
    return lines


def figure(results: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]], seed: int) -> Figure:
    """Sets of bimodal data by three methods, and lengths beside CQR's on all data."""
    drawing = Figure((11, 7), layout="constrained")
    above = drawing.add_gridspec(2, 3)
    (x, y), (test_x, test_y) = split("bimodal", seed)
    at = np.linspace(0, 4, 120)[:, None]
    for place, method in enumerate(("two-hot", "cqr", "split")):
        axes = drawing.add_subplot(above[0, place])
        sets = ConformalRegressor(method, alpha=ALPHA, random_state=seed).fit(x, y).predict_set(at)  # type: ignore[arg-type]
        for position, row in zip(at[:, 0], sets, strict=True):
            axes.vlines([position] * len(row), [a for a, _ in row], [b for _, b in row], "#1b78b4", lw=3, alpha=0.35)
        axes.plot(test_x[:400, 0], test_y[:400], ".", ms=3, color="#5b6770")
        axes.set(title=f"{method}: mean length {statistics.fmean(lengths(sets)):.2f}", xlabel="x", ylabel="y")
    axes = drawing.add_subplot(above[1, :])
    colours = dict(
        zip(("best", "two-hot", "split", "normalised"), ("#d95f02", "#7b5ea7", "#5b6770", "#2a9d5c"), strict=True)
    )
    for i, (method, colour) in enumerate(colours.items()):
        for j, splits in enumerate(results.values()):
            ratio = [(chosen(s) if method == "best" else s[method])["length"] / s["cqr"]["length"] for s in splits]
            place = j + 0.16 * (i - 1.5)
            axes.plot(place + np.linspace(-0.05, 0.05, len(ratio)), ratio, ".", ms=4, color=colour, alpha=0.5)
            axes.plot(place, statistics.fmean(ratio), "_", ms=16, mew=3, color=colour, label=method if j == 0 else None)
    axes.axhline(1, color="black", lw=0.8, ls="--")
    axes.set(xticks=range(len(results)), xticklabels=list(results), ylim=(0, None))
    axes.set(
        ylabel="length / CQR's length", title="a dot a split, a bar their mean; below the line is shorter than CQR"
    )
    axes.legend(ncols=4, loc="lower right")
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/conformal.jsonl"))
    parser.add_argument("--data", nargs="+", choices=[*DRAWN, *TABLES], default=[*DRAWN, *TABLES])
    parser.add_argument("--splits", type=int, nargs=2, metavar=("FIRST", "NUMBER"), default=(3, 20))
    parser.add_argument("--optimizer", choices=("ivon", "adamw"), default="ivon")
    parser.add_argument("--table", action="store_true", help="make no runs")
    parser.add_argument("--figure", type=Path, help="where to draw it, as a PNG")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {} if args.optimizer == "ivon" else {"optimizer": args.optimizer}
    store = Store(args.results)
    latest = store.latest()
    shown: list[Run] = []
    results: dict[str, list[dict[str, Any]]] = {data: [] for data in args.data}
    for seed in range(args.splits[0], sum(args.splits)):
        for data in args.data:
            cells = [cell(data, method, seed, settings) for method in METHODS]
            runs = [latest.get(c.title) if args.table else store.make(c) for c in cells]
            made = [one for one in runs if one is not None]
            if len(made) == len(METHODS):
                shown += made
                results[data].append(dict(zip(METHODS, (one.results for one in made), strict=True)))
                if not args.table:
                    print(f"{data}, split {seed}: {sum(one.results['seconds'] for one in made):.1f} s", flush=True)
    results = {data: splits for data, splits in results.items() if len(splits) > 1}
    print("\n".join(table(results)))
    print(f"\n{min(map(len, results.values()), default=0)} splits or more of each; made by {made_by(shown)}")
    if args.figure:
        figure(results, args.splits[0]).savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
