"""Accuracy against bytes: what each method makes of the memory that it is given.

    python -m bayesdual compare --config configs/compare_envelope.yaml
    python benchmarks/envelope.py comparisons/envelope/results.json --figure docs/figures/envelope.png

Draws a comparison whose benchmarks are called ``STREAM / BUDGET``, such as ``1 epoch / 40 kB``: a panel a stream,
a line for each method with a dot for each run, at the bytes that were carried in fact, and joint training, dashed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

COLOURS = ("#d95f02", "#1b78b4", "#2a9d5c", "#7b5ea7", "#8c564b", "#c44e84", "#5b6770", "#b39c00")  # ours is the first
APART = 0.045  # of the axis, between labels
MARGIN = 0.02  # of accuracy, below the lowest dot

Point = tuple[float, list[float]]
"""The mean of the bytes, and the accuracy of each run."""


def panels(results: Mapping[str, Any]) -> dict[str, dict[str, list[Point]]]:
    """The points of each method, by ascending bytes, in each panel.

    Args:
        results: What ``compare`` wrote to ``results.json``.

    Raises:
        ValueError: A benchmark is not called ``STREAM / BUDGET``.
    """
    cells: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run in results["runs"]:
        stream, separator, budget = run["benchmark"].rpartition(" / ")
        if not separator:
            raise ValueError(f"the benchmark {run['benchmark']!r} is not called STREAM / BUDGET: rename it.")
        if run["results"] is not None:
            cells.setdefault((stream, run["method"], budget), []).append(run["results"])
    found: dict[str, dict[str, list[Point]]] = {}
    for (stream, method, _), runs in cells.items():
        size = statistics.mean(sum(run["memory_bytes"].values()) for run in runs)
        point = (size, [run["average_accuracy"] for run in runs])
        points = found.setdefault(stream, {}).setdefault(method, [])
        if point not in points:  # a method without a budget is the same run under each
            points.append(point)
    return {stream: {m: sorted(points) for m, points in methods.items()} for stream, methods in found.items()}


def envelope_figure(results: Mapping[str, Any]) -> Figure:
    """The figure; see the module."""
    drawn = panels(results)
    bounds = {row["method"] for row in results["rows"] if row["role"] in ("upper", "lower")}
    methods = [m for m in dict.fromkeys(row["method"] for row in results["rows"]) if m not in bounds]
    colours = {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(methods)}
    accuracies = [a for lines in drawn.values() for points in lines.values() for _, values in points for a in values]
    lowest = max(0.0, min(accuracies) - MARGIN)
    figure = Figure((5.2 * len(drawn), 4.2), layout="constrained")
    grid = figure.subplots(1, len(drawn), squeeze=False, sharey=True).flatten()
    for axes, (stream, lines) in zip(grid, drawn.items(), strict=True):
        axes.set(xscale="log", title=stream, xlabel="bytes carried from one experience to the next")
        axes.set_ylim(lowest, min(1.0, max(accuracies) + MARGIN))
        ends = []
        for method, points in lines.items():
            if method in bounds:
                level = statistics.mean(points[-1][1])
                axes.axhline(level, color="gray", linestyle="--", linewidth=1)
                ends.append((None, level, method, "gray"))
                continue
            ours, colour = method == methods[0], colours[method]
            sizes, means = [size for size, _ in points], [statistics.mean(values) for _, values in points]
            axes.plot(sizes, means, color=colour, linewidth=2.4 if ours else 1.2, zorder=3 if ours else 2)
            for size, values in points:
                axes.plot([size] * len(values), values, ".", color=colour, markersize=5, zorder=3)
            ends.append((sizes[-1], means[-1], method, colour))
        _label(axes, ends)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: in_words(size)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    start = f" (axis begins at {lowest:.2f}, not at 0)" if lowest else ""
    grid[0].set_ylabel(f"average accuracy{start}")
    return figure


def in_words(size: float) -> str:
    """Bytes as kB or MB."""
    return f"{size / 1e6:g} MB" if size >= 1e6 else f"{size / 1e3:g} kB"


def spread_out(values: Sequence[float], apart: float) -> list[float]:
    """Places near values, in their order, that are at least as far apart as is said."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    groups: list[tuple[list[int], float]] = []  # members, and the place of the first
    for i in order:
        members, first = [i], values[i]
        while groups and groups[-1][1] + apart * len(groups[-1][0]) > first:
            members = groups.pop()[0] + members
            first = statistics.mean(values[j] - apart * k for k, j in enumerate(members))
        groups.append((members, first))
    places = list(values)
    for members, first in groups:
        for k, i in enumerate(members):
            places[i] = first + apart * k
    return places


def _label(axes: Axes, ends: Sequence[tuple[float | None, float, str, str]]) -> None:
    """Names on the right, joined to the ends of lines: size (None: all along), accuracy, name and colour of each."""
    bottom, top = axes.get_ylim()
    right = axes.get_xlim()[1]
    places = spread_out([level for _, level, *_ in ends], APART * (top - bottom))
    for (size, level, name, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            name,
            xy=(right if size is None else size, level),
            xytext=(1.03, (place - bottom) / (top - bottom)),
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3},
        )
    axes.set_xlim(right=right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json of a comparison")
    parser.add_argument("--figure", type=Path, help="where to; by default envelope.png beside the results")
    args = parser.parse_args()
    place = args.figure or args.results.with_name("envelope.png")
    envelope_figure(json.loads(args.results.read_text())).savefig(place, dpi=140)
    print(f"written to {place}")


if __name__ == "__main__":
    main()
