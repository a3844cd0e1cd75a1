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
}  # told apart by those who are colour-blind, too
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
    image = axes.imshow(np.ma.masked_where(~seen, matrix), vmin=low, vmax=high, cmap=colors, aspect="auto")
    if few:
        for i, j in zip(*np.nonzero(seen), strict=True):
            a = matrix[i][j]
            dark = ((a - low) / (high - low) < 0.6) != score.lower_is_better
            text = f"{a:.2f}" if score == measures.ACCURACY else f"{a:.3g}"
            axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)
        axes.set_xticks(range(n), [str(j + 1) for j in range(n)])
        axes.set_yticks(range(learned), [str(i + 1) for i in range(learned)])
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
    figure = new_figure(6, 3.6)
    axes = figure.subplots()
    steps = range(1, len(matrix) + 1)
    few = len(matrix) <= WITH_NAMES
    for j in range(len(matrix)):
        look: dict[str, Any] = {"color": "gray", "alpha": 0.3}
        if few:
            look = {"marker": "o", "alpha": 0.8, "label": f"experience {j + 1}", "color": shade(j, len(matrix))}
        axes.plot(steps[j:], [row[j] for row in matrix[j:]], **look)
    means = seen_means(matrix)
    axes.plot(steps, means, color="black", linewidth=2.5, label="mean of those seen")
    axes.set(xlabel="after experience", ylabel=score.name)
    if score == measures.ACCURACY:
        axes.set_ylim(0, 1.02)
    if few:
        axes.set_xticks(list(steps))
    axes.legend(fontsize=7, ncols=1 + len(matrix) // 8, loc="lower left")
    return figure


def seen_means(matrix: measures.Matrix) -> list[float]:
    """The mean score of the experiences seen, after each."""
    return [measures.average_seen_accuracy(matrix[: i + 1]) for i in range(len(matrix))]


def compared_figure(means: Mapping[str, Sequence[float]], score: measures.Score = measures.ACCURACY) -> Figure:
    """A value after each experience, of several runs, each named where its line ends."""
    figure = new_figure(6, 3.6)
    axes = figure.subplots()
    for place, (name, values) in enumerate(means.items()):
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, "o-", color=shade(place, len(means)), label=name)
    axes.set(xlabel="after experience", ylabel=f"{score.name}, mean of those seen")
    if score == measures.ACCURACY:
        axes.set_ylim(0, 1.02)
    if max(map(len, means.values())) <= WITH_NUMBERS:
        axes.set_xticks(range(1, max(map(len, means.values())) + 1))
    axes.legend(fontsize=7, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def shade(j: int, n: int) -> tuple[float, float, float, float]:
    """The colour of one of n things in an order, the first dark and the last bright, so that hues are not needed."""
    from matplotlib import colormaps

    return colormaps["viridis"](0.9 * j / max(1, n - 1))


def certainty_figure(over_stream: Sequence[Mapping[str, Any]]) -> Figure:
    """Whether it knows what it does not know: how sure, and how rightly, of old, new and unseen experiences.

    Args:
        over_stream: What :class:`bayesdual.learner.History` has of each evaluation.
    """
    figure = new_figure(7.2, 5.4)
    panels = figure.subplots(2, 2).flatten()
    for group, color in GROUP_COLORS.items():
        rows = [row for row in over_stream if group in row]
        steps = [row["after"] for row in rows]
        for axes, key in zip(panels, ("nll", "ece", "entropy"), strict=False):
            axes.plot(steps, [row[group][key] for row in rows], "o-", color=color, label=group)
        if rows and "epistemic" in rows[0][group]:
            own = [row[group]["epistemic"] for row in rows]
            panels[2].plot(steps, own, "s--", color=color, ms=4)
    apart = [(row["after"], row["told_apart"]["unseen"]) for row in over_stream if "unseen" in row["told_apart"]]
    for key, look in (("entropy", "o-"), ("epistemic", "s--")):
        told = [(step, scores[f"auroc_{key}"]) for step, scores in apart if f"auroc_{key}" in scores]
        if told:
            panels[3].plot(*zip(*told, strict=True), look, color=GROUP_COLORS["unseen"], label=f"by {key}")
    panels[0].set_yscale("log")
    panels[3].axhline(0.5, color="black", lw=0.8, ls=":", label="by chance")
    names = ("NLL, nats (log)", "ECE", "entropy, nats (dashed: of the weights)", "AUROC of unseen")
    for axes, name in zip(panels, names, strict=True):
        axes.set_xlabel("after experience")
        axes.set_title(name, fontsize=10)
        if len(over_stream) <= WITH_NUMBERS:
            axes.set_xticks([row["after"] for row in over_stream])
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1:3]:
        axes.set_ylim(bottom=0)
    panels[3].set_ylim(0, 1.02)
    panels[1].legend(fontsize=7, loc="center right")
    panels[3].legend(fontsize=7, loc="lower left")
    return figure


def confusion_figure(confusion: Sequence[Sequence[int]], names: Sequence[str] | None = None) -> Figure:
    """What each class (rows) is taken for (columns), as shares of its examples; many classes are shown without numbers.

    Args:
        confusion: Counts, C rows of C.
        names: Of the classes; None: their numbers.
    """
    counts = np.asarray(confusion, dtype=float)
    present = counts.sum(1) > 0
    shares = np.divide(counts, counts.sum(1, keepdims=True), out=np.zeros_like(counts), where=present[:, None])
    n = len(shares)
    few = n <= WITH_NUMBERS
    figure = new_figure(*((1.4 + 0.42 * n, 1.2 + 0.4 * n) if few else (8, 7)))
    axes = figure.subplots()
    image = axes.imshow(np.where(present[:, None], shares, np.nan), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    if few:
        labels = [name_of(c, names) for c in range(n)]
        for i, j in zip(*np.nonzero(shares >= 0.005), strict=True):
            color = "white" if shares[i, j] > 0.6 else "black"
            axes.text(j, i, f"{shares[i, j]:.2f}".lstrip("0"), ha="center", va="center", color=color, fontsize=7)
        axes.set_xticks(range(n), labels, rotation=90 if names else 0)
        axes.set_yticks(range(n), labels)
    else:
        figure.colorbar(image, ax=axes, label="share of the class")
    axes.set(xlabel="taken for", ylabel="class")
    return figure


def classes_figure(confusion: Sequence[Sequence[int]], names: Sequence[str] | None = None) -> Figure:
    """Accuracy of each class, the worst first; of many classes the worst and the best only. Arguments as above."""
    counts = np.asarray(confusion, dtype=float)
    known = np.nonzero(counts.sum(1))[0]
    accuracy = counts[known, known] / counts[known].sum(1)
    order = np.argsort(accuracy, kind="stable")
    half = WITH_NAMES // 2
    shown = order if len(order) <= WITH_NAMES else np.concatenate([order[:half], order[-half:]])
    figure = new_figure(6, 0.8 + 0.26 * len(shown))
    axes = figure.subplots()
    axes.hlines(range(len(shown)), 0, accuracy[shown], color=KEPT_COLOR, alpha=0.4, linewidth=5)
    axes.plot(accuracy[shown], range(len(shown)), "o", color=KEPT_COLOR)
    labels = [name_of(c, names) for c in known[shown]]
    axes.set_yticks(range(len(shown)), labels)
    axes.invert_yaxis()
    left_out = f", the {half} worst and the {half} best of {len(order)}" if len(shown) < len(order) else ""
    axes.set(xlabel="accuracy", ylabel=f"class{left_out}", xlim=(0, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def reliability_figure(bins: Sequence[measures.Bin]) -> Figure:
    """How often answers are right (dots, the larger the more answers) against how sure they are."""
    figure = new_figure(4.2, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1, label="as sure as it is right")
    counts, confidence, accuracy = np.asarray(bins, dtype=float).T
    axes.scatter(confidence, accuracy, 10 + 190 * counts / counts.max(), color=LOST_COLOR, alpha=0.8, label="answers")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="upper left", markerscale=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def name_of(label: int, class_names: Sequence[str] | None) -> str:
    """The name of a class, its number where it has none."""
    return str(label) if class_names is None or label >= len(class_names) else class_names[label]


def losses_figure(lost: Sequence[float], score: measures.Score = measures.ACCURACY) -> Figure:
    """How much worse the score on each experience is than it was at its best."""
    figure = new_figure(6, 2.4)
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
    figure = new_figure(6, 0.9 + 0.32 * len(names))
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
    axes.set_xlabel(f"standard deviation{left_out}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def quantiles(values: Tensor, at: Tensor) -> Tensor:
    """Quantiles of any number of values, shape (N,), which ``torch.quantile`` takes only so many of."""
    ordered = values.sort().values
    return ordered[(at * (len(ordered) - 1)).round().long()]


def parts_figure(parts: Mapping[str, float], unit: str) -> Figure:
    """What a whole is made of, the largest part first."""
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    figure = new_figure(6, 0.7 + 0.3 * len(ordered))
    axes = figure.subplots()
    axes.barh(range(len(ordered)), [value for _, value in ordered], color="#5b6770")
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    for row, (_, value) in enumerate(ordered):
        axes.text(value, row, f" {value:,.0f}" if value >= 100 else f" {value:.1f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
