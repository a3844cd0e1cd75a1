"""Figures of answers: which classes they are right on, what these are taken for, how sure they are and how rightly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdual.inspection.figures import (
    GROUP_COLORS,
    KEPT_COLOR,
    LOST_COLOR,
    WITH_NAMES,
    WITH_NUMBERS,
    name_of,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUP_NAMES = {"ood": "other data"}


def certainty_figure(over_stream: Sequence[Mapping[str, Any]]) -> Figure:
    """Whether it knows what it does not know: how sure, and how rightly, of old, new and unseen experiences.

    Args:
        over_stream: What :class:`bayesdual.learner.History` has of each evaluation.
    """
    figure = new_figure(7.2, 5.4)
    panels = figure.subplots(2, 2).flatten()
    line, dashed = ("o-", "s--") if len(over_stream) <= WITH_NUMBERS else ("-", "--")
    for group, color in GROUP_COLORS.items():
        rows = [row for row in over_stream if group in row]
        for axes, key in zip(panels, ("nll", "ece", "entropy"), strict=False):
            known = [(row["after"], row[group][key]) for row in rows if key in row[group]]
            if known:
                axes.plot(*zip(*known, strict=True), line, color=color, label=GROUP_NAMES.get(group, group))
        if rows and "epistemic" in rows[0][group]:
            own = [row[group]["epistemic"] for row in rows]
            panels[2].plot([row["after"] for row in rows], own, dashed, color=color, ms=4)
        for key, look in (("entropy", line), ("epistemic", dashed)):
            apart = [(row["after"], row["told_apart"].get(group, {})) for row in over_stream]
            told = [(step, scores[f"auroc_{key}"]) for step, scores in apart if f"auroc_{key}" in scores]
            if told:
                name = f"{GROUP_NAMES.get(group, group)} by {key}"
                panels[3].plot(*zip(*told, strict=True), look, color=color, label=name)
    panels[0].set_yscale("log")
    panels[3].axhline(0.5, color="black", lw=0.8, ls=":", label="by chance")
    of_weights = any("epistemic" in row.get(group, {}) for row in over_stream for group in GROUP_COLORS)
    entropy = f"entropy, nats{' (dashed: of the weights)' if of_weights else ''}"
    names = ("NLL, nats (log)", "ECE", entropy, "AUROC of what was not learned")
    for axes, name in zip(panels, names, strict=True):
        axes.set_xlabel("after experience")
        axes.set_title(name, fontsize=10)
        if len(over_stream) <= WITH_NUMBERS:
            axes.set_xticks([row["after"] for row in over_stream])
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1:3]:
        axes.set_ylim(bottom=0)
    panels[3].set_ylim(0, 1.02)
    figure.legend(*panels[2].get_legend_handles_labels(), loc="upper center", ncols=4, frameon=False, fontsize=9)
    figure.set_layout_engine("tight", rect=(0, 0, 1, 0.95))  # with room for it
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
        axes.set_xticks(range(n), labels, rotation=90 if max(map(len, labels)) > 2 else 0)
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
    figure = new_figure(5.2, 0.8 + 0.26 * len(shown))
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


def reliability_figure(bins: Sequence[Sequence[float]]) -> Figure:
    """How often answers are right (dots, the larger the more answers) against how sure they are.

    Args:
        bins: Of each the number of answers, mean confidence and accuracy, as :func:`bayesdual.measures.reliability`.
    """
    figure = new_figure(4.2, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1, label="as sure as it is right")
    counts, confidence, accuracy = np.asarray(bins, dtype=float).T
    axes.scatter(
        confidence,
        accuracy,
        10 + 190 * counts / counts.max(),
        color=LOST_COLOR,
        alpha=0.8,
        label="answers",
        clip_on=False,
    )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, markerscale=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
