"""Figures for TensorBoard and as PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bayesdual import measures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bayesdual.posterior import Posterior


Figures = dict[str, "Figure"]
"""By name."""
Picture = npt.NDArray[np.uint8]
"""Red, green and blue of each pixel, shape (height, width, 3)."""

DPI = 110
WITH_NUMBERS = 20  # experiences whose accuracies are written into the heat map
WITH_NAMES = 20  # experiences whose lines are named
GROUP_COLORS = {
    "old": "#d55e00",
    "new": "#0072b2",
    "unseen": "#5b6770",
    "ood": "#cc79a7",  # data of another kind
}  # told apart by those who are colour-blind, too
MEAN = "mean of those seen"
LOST_COLOR, KEPT_COLOR = "#d55e00", "#0072b2"


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # only drawn at the end; importing it takes a while

    return Figure((width, height), dpi=DPI, layout="tight")  # constrained takes twice as long


def picture(figure: Figure) -> Picture:
    """A figure as pixels, drawn once for a file and for TensorBoard."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def save(pixels: Picture, path: Path) -> None:
    """Writes a picture as PNG."""
    from matplotlib.image import imsave

    imsave(path, pixels)


def accuracy_figure(matrix: measures.Matrix, score: measures.Score = measures.ACCURACY) -> Figure:
    """The matrix of a score as a heat map, the better the lighter; what was not learned yet is left empty."""
    n, learned = len(matrix[0]), len(matrix)
    few = n <= WITH_NUMBERS
    figure = new_figure(*((1.6 + 0.6 * n, 1.2 + 0.55 * learned) if few else (8, 7)))
    axes = figure.subplots()
    seen = np.tril(np.ones((learned, n), dtype=bool)) & ~np.isnan(matrix)
    low, high = _range(score, [matrix[i][j] for i, j in zip(*np.nonzero(seen), strict=True)])
    colors = "viridis_r" if score.lower_is_better else "viridis"
    shown = np.ma.masked_where(~seen, matrix)
    places = (0.5, n + 0.5, learned + 0.5, 0.5)  # experiences are counted from 1
    image = axes.imshow(shown, vmin=low, vmax=high, cmap=colors, aspect="auto", extent=places)
    if few:
        for i, j in zip(*np.nonzero(seen), strict=True):
            a = matrix[i][j]
            dark = ((a - low) / (high - low) < 0.6) != score.lower_is_better
            text = f"{a:.2f}" if score == measures.ACCURACY else f"{a:.3g}"
            axes.text(j + 1, i + 1, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)
        axes.set_xticks(range(1, n + 1))
        axes.set_yticks(range(1, learned + 1))
    else:
        figure.colorbar(image, ax=axes, label=score.name)
    axes.set_xlabel(f"{score.name} on experience")
    axes.set_ylabel("after experience")
    return figure


def _range(score: measures.Score, values: Sequence[float]) -> tuple[float, float]:
    """Between what a score is drawn: of accuracies 0 and 1, of others what there is."""
    if score == measures.ACCURACY:
        return 0.0, 1.0
    low, high = min(*values, 0.0) if score.lower_is_better else min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)


def progress_figure(matrix: measures.Matrix, score: measures.Score = measures.ACCURACY) -> Figure:
    """How the score of each experience goes on once it is learned, and the mean over those seen."""
    figure = new_figure(6.6, 3.6)
    axes = figure.subplots()
    n = len(matrix)
    few = n <= WITH_NAMES
    ends: list[tuple[float, str, Any]] = []
    groups = groups_of(n, 1 if few else -(-n // 10))
    for place, group in enumerate(groups):
        means = [known_mean(row[group[0] : min(group[-1], i) + 1]) for i, row in enumerate(matrix) if i >= group[0]]
        look: dict[str, Any] = {"marker": "o", "markersize": 4} if few else {}
        name, color = f"experience{span(group)}", shade(place, len(groups))
        axes.plot(range(group[0] + 1, n + 1), means, alpha=0.9, color=color, label=name, **look)
        ends.append((means[-1], name, color))
    means = seen_means(matrix)
    axes.plot(range(1, n + 1), means, color="black", linewidth=2.5, label=MEAN)
    axes.set(xlabel="after experience", ylabel=score.name if few else f"{score.name}, means of experiences")
    if score == measures.ACCURACY:
        axes.set_ylim(0, 1.02)
    if few:
        axes.set_xticks(range(1, n + 1))
    name_ends(axes, n, [*ends, (means[-1], MEAN, "black")])
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def groups_of(n: int, each: int) -> list[range]:
    """Things in an order, so many in each group."""
    return [range(first, min(first + each, n)) for first in range(0, n, each)]


def span(group: range) -> str:
    """The numbers of a group, counted from 1, after a word."""
    return f" {group[0] + 1}" if len(group) == 1 else f"s {group[0] + 1}-{group[-1] + 1}"


def known_mean(values: Sequence[float]) -> float:
    """The mean of those that are no NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def name_ends(axes: Axes, x: float, ends: Sequence[tuple[float, str, Any]]) -> None:
    """Writes names beside the ends of lines, moved apart where they would stand on each other.

    Args:
        axes: Whose lines end at ``x``, and whose limits are final.
        x: Where they end.
        ends: Height, name and colour of each.
    """
    low, high = axes.get_ylim()
    apart = 0.055 * (high - low)
    heights: list[float] = []
    known = sorted((end for end in ends if not math.isnan(end[0])), key=lambda end: -end[0])
    for height, *_ in known:
        heights.append(min([height, *(above - apart for above in heights[-1:])]))
    for k in range(1, len(heights) + 1):  # from below: none beneath the axis, and those above it make room
        heights[-k] = max(heights[-k], low if k == 1 else heights[1 - k] + apart)
    for place, (height, name, color) in zip(heights, known, strict=True):
        line = {"arrowstyle": "-", "color": color, "lw": 1.2, "shrinkA": 1, "relpos": (0, 0.5)}
        axes.annotate(
            name, (x, height), (18, place), textcoords=("offset points", "data"), arrowprops=line,
            annotation_clip=False, fontsize=8, va="center",
        )  # fmt: skip


def seen_means(matrix: measures.Matrix) -> list[float]:
    """The mean score of the experiences seen, after each."""
    return [measures.average_seen_accuracy(matrix[: i + 1]) for i in range(len(matrix))]


def compared_figure(means: Mapping[str, Sequence[float]], score: measures.Score = measures.ACCURACY) -> Figure:
    """A value after each experience, of several runs, each named where its line ends."""
    figure = new_figure(6.6, 3.6)
    axes = figure.subplots()
    longest = max(map(len, means.values()))
    ends = []
    for place, (name, values) in enumerate(means.items()):
        color = shade(place, len(means))
        axes.plot(range(1, len(values) + 1), values, "o-", markersize=4, color=color)
        ends.append((values[-1], name, color))
    axes.set(xlabel="after experience", ylabel=f"{score.name}, mean of those seen")
    if score == measures.ACCURACY:
        axes.set_ylim(0, 1.02)
    if longest <= WITH_NUMBERS:
        axes.set_xticks(range(1, longest + 1))
    name_ends(axes, longest, ends)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def shade(j: int, n: int) -> tuple[float, float, float, float]:
    """The colour of one of n things in an order, the first dark and the last bright, so that hues are not needed."""
    from matplotlib import colormaps

    return colormaps["viridis"](0.9 * j / max(1, n - 1))


def name_of(label: int, class_names: Sequence[str] | None) -> str:
    """The name of a class, its number where it has none."""
    return str(label) if class_names is None or label >= len(class_names) else class_names[label]


def losses_figure(lost: Sequence[float], score: measures.Score = measures.ACCURACY) -> Figure:
    """How much worse the score on each experience is than it was at its best."""
    figure = new_figure(5.2, 2.4)
    axes = figure.subplots()
    axes.bar(range(1, len(lost) + 1), lost, color=LOST_COLOR)
    if len(lost) <= WITH_NUMBERS:
        axes.set_xticks(range(1, len(lost) + 1))
        for j, value in enumerate(lost):
            if math.isnan(value):
                continue
            axes.text(j + 1, value, f"{value:.3f}", ha="center", va="bottom", fontsize=8)
    axes.set(xlabel="experience", ylabel=f"{score.name} {'gained' if score.lower_is_better else 'lost'}")
    axes.set_ylim(0, max(0.1, 1.15 * max(lost)) if score == measures.ACCURACY else None)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def posterior_figure(posterior: Posterior) -> Figure:
    """Standard deviations of the parameters of each layer: the middle half of them, and the median.

    Of many those that the data have narrowed most are drawn.
    """
    quarters = torch.tensor([0.25, 0.5, 0.75])
    found = {
        name: quantiles(precision.float().rsqrt().flatten(), quarters).tolist()
        for name, precision in posterior.precision.items()
    }
    narrow = sorted(found, key=lambda name: found[name][1])[:WITH_NAMES]
    names = [name for name in found if name in narrow]
    figure = new_figure(5.2, 0.9 + 0.32 * len(names))
    axes = figure.subplots()
    for row, name in enumerate(names):
        low, middle, high = found[name]
        axes.plot([low, high], [row, row], color=KEPT_COLOR, linewidth=6, alpha=0.4, solid_capstyle="butt")
        axes.plot(middle, row, "o", color=KEPT_COLOR)
    widest = max(high for *_, high in found.values())
    if posterior.prior_precision > 0:
        widest = max(widest, posterior.prior_precision**-0.5)
        axes.axvline(posterior.prior_precision**-0.5, color="gray", linestyle="--", linewidth=1, label="prior")
        axes.legend(fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.05 * widest)
    left_out = f", the {len(names)} narrowest of {len(found)} parameters" if len(names) < len(found) else ""
    axes.set(xlabel=f"standard deviation{left_out}", ylabel="parameter")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def quantiles(values: Tensor, at: Tensor) -> Tensor:
    """Quantiles of any number of values, shape (N,), which ``torch.quantile`` takes only so many of."""
    ordered = values.sort().values
    return ordered[(at * (len(ordered) - 1)).round().long()]


def parts_figure(parts: Mapping[str, float], unit: str) -> Figure:
    """What a whole is made of, the largest part first."""
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    figure = new_figure(5.2, 0.7 + 0.3 * len(ordered))
    axes = figure.subplots()
    axes.barh(range(len(ordered)), [value for _, value in ordered], color="#5b6770")
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    for row, (_, value) in enumerate(ordered):
        axes.text(value, row, f" {value:,.0f}" if value >= 100 else f" {value:.1f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}" if value < 1e6 else f"{value / 1e6:g} million")
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
