"""Figures of the memory: what is in it, what came and went, and where an experience's examples stand to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayesdual.inspection.figures import KEPT_COLOR, LOST_COLOR, Figures, name_of, new_figure
from bayesdual.memory import classes_or_one

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesdual.memory import Exemplars, MemoryMap

OTHERS_COLOR = "#8a949b"
COLUMNS = 10  # exemplars of a class that are drawn
CLASSES = 20  # that are drawn
POINTS = 2000  # of a memory map
LOWEST = 1e-6  # of the highest leverage, below which examples stand on the axis


def is_images(x: Tensor) -> bool:
    """Whether inputs (M, ...) look like images, of 1 or 3 channels."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def figures_of_memory(
    kept: Exemplars | None, mapped: MemoryMap | None, class_names: Sequence[str] | None = None
) -> Figures:
    """All figures that what is known of a memory allows, by the names of their files."""
    found: Figures = {}
    if kept is not None and is_images(kept.x):
        found["memory"] = memory_figure(kept, class_names)
    if mapped is not None:
        found["memory_map"] = map_figure(mapped)
        if is_images(mapped.x):
            found["memory_extremes"] = extremes_figure(mapped, class_names)
        if not mapped.y.is_floating_point():
            found["memory_changes"] = changes_figure(mapped.changes, class_names)
    return found


def memory_figure(exemplars: Exemplars, class_names: Sequence[str] | None = None) -> Figure:
    """The first exemplars of each class in a row, with how many examples each stands for, and a bar for its score.

    All bars have one scale, up to the highest score. Of many classes those with the highest scores are drawn.
    """
    labels = classes_or_one(exemplars.y)
    classes, left_out = shown_classes(labels, exemplars.scores)
    height, width = exemplars.x.shape[2:]
    top, right = height // 2, width // 8 + 1  # room for what is said, and between images
    canvas = torch.ones(len(classes), top + height, COLUMNS, width + right, 3)
    figure = new_figure(0.75 * COLUMNS, 0.8 + 0.75 * len(classes))
    axes = figure.subplots()
    highest = max(float(exemplars.scores.max()), 1e-30)
    for row, c in enumerate(classes):
        mine = exemplars[labels == c]
        for column in range(min(len(mine), COLUMNS)):
            canvas[row, top:, column, :width] = shades(mine.x[column])
            x, y = column * (width + right), row * (top + height) + top - 1
            axes.text(x + width / 2, y - 1, f"{mine.weights[column]:.0f}", fontsize=6, ha="center", va="bottom")
            score = width * float(mine.scores[column]) / highest
            axes.hlines([y, y], [x, x], [x + width, x + score], ["#dddddd", LOST_COLOR], linewidth=2.5)
    axes.imshow(canvas.flatten(2, 3).flatten(0, 1).numpy())
    rows = [row * (top + height) + top + height / 2 for row in range(len(classes))]
    axes.set_yticks(rows, [name_of(c, class_names) for c in classes])
    axes.set_ylabel("class")
    axes.set_xticks([])
    axes.set_title(
        f"number: how many examples it stands for; bar: its score, a full one is {highest:.2g}{left_out}", fontsize=8
    )
    axes.spines[:].set_visible(False)
    return figure


def shown_classes(labels: Tensor, scores: Tensor) -> tuple[list[int], str]:
    """The classes that are drawn, in order, and what is said of those that are not."""
    classes: list[int] = labels.unique().tolist()
    if len(classes) <= CLASSES:
        return classes, ""
    highest = {c: float(scores[labels == c].max()) for c in classes}
    chosen = sorted(sorted(classes, key=lambda c: -highest[c])[:CLASSES])
    return chosen, f"; of {len(classes)} classes the {CLASSES} with the highest scores"


def shades(image: Tensor) -> Tensor:
    """An image (1 or 3, H, W) of any range between 0 and 1 from its darkest, shape (H, W, 1 or 3)."""
    values = image.cpu().float().permute(1, 2, 0)
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp_min(1e-6)


def changes_figure(changes: Tensor, class_names: Sequence[str] | None = None) -> Figure:
    """How many exemplars of each class came into the memory and went from it; of many classes those with the most.

    Args:
        changes: Class, how many came, how many went; shape (C, 3).
        class_names: By label.
    """
    most = changes[:, 1:].sum(1).argsort(descending=True, stable=True)[:CLASSES].sort().values
    rows = changes[most].tolist()
    figure = new_figure(5.2, 1.1 + 0.26 * max(1, len(rows)))
    axes = figure.subplots()
    for row, (_, came, went) in enumerate(rows):
        axes.barh(row, came, color=KEPT_COLOR)
        axes.barh(row, -went, color=LOST_COLOR)
        for number, side in ((came, "left"), (-went, "right")):
            if number:
                axes.text(number, row, f" {number:+d} ", ha=side, va="center", fontsize=8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name_of(c, class_names) for c, *_ in rows])
    axes.invert_yaxis()
    left_out = f", the {CLASSES} that changed most of {len(changes)}" if len(changes) > CLASSES else ""
    axes.set(xlabel="exemplars that went (-) and came (+)", ylabel=f"class{left_out}")
    axes.margins(x=0.15)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def map_figure(mapped: MemoryMap) -> Figure:
    """Residual against leverage of an experience's examples, those kept marked; of many a part."""
    figure = new_figure(5.2, 3.6)
    axes = figure.subplots()
    rows, floor = drawn_rows(mapped), leverage_floor(mapped)
    looks: tuple[tuple[bool, dict[str, Any]], ...] = (
        (False, {"color": OTHERS_COLOR, "s": 6, "alpha": 0.5, "label": "not kept"}),
        (True, {"color": KEPT_COLOR, "s": 26, "edgecolors": "white", "linewidths": 0.5, "label": "kept"}),
    )
    for kept, look in looks:
        at = rows[mapped.kept[rows] == kept]
        axes.scatter(mapped.residuals[at], mapped.leverages[at].clamp_min(floor), rasterized=True, **look)
    axes.set_yscale("log")
    left_out = f"; {len(rows):,} of {len(mapped.y):,} drawn" if len(rows) < len(mapped.y) else ""
    axes.set(xlabel=f"{residual_name(mapped)}{left_out}", ylabel="leverage")
    if not mapped.y.is_floating_point():
        axes.set_xlim(-0.02, 1.02)
    axes.legend(fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def extremes_figure(mapped: MemoryMap, class_names: Sequence[str] | None = None) -> Figure:
    """Pictures of the examples of the highest leverage, and of the highest residual below them, each with its class."""
    half = len(mapped.extremes) // 2
    height, width = mapped.x.shape[2:]
    top, right = height // 2, width // 4 + 1
    canvas = torch.ones(2, top + height, half, width + right, 3)
    figure = new_figure(0.8 * half + 0.6, 2.4)
    axes = figure.subplots()
    for place, of in enumerate(mapped.extremes.tolist()):
        row, column = divmod(place, half)
        canvas[row, top:, column, :width] = shades(mapped.x[place])
        at = column * (width + right) + width / 2, row * (top + height) + top - 1
        mark: dict[str, Any] = {"color": KEPT_COLOR, "weight": "bold"} if mapped.kept[of] else {}
        axes.text(*at, label_of(mapped.y[of], class_names), fontsize=8, ha="center", va="bottom", **mark)
    axes.imshow(canvas.flatten(2, 3).flatten(0, 1).numpy())
    middles = [row * (top + height) + top + height / 2 for row in range(2)]
    axes.set_yticks(middles, ["highest\nleverage", "highest\nresidual"], fontsize=8)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_title("class; bold: kept in the memory", fontsize=8)
    axes.spines[:].set_visible(False)
    return figure


def residual_name(mapped: MemoryMap) -> str:
    """What the residuals are, of classes or of numbers."""
    return "residual: |prediction - target|" if mapped.y.is_floating_point() else "residual: 1 - p(label)"


def label_of(y: Tensor, class_names: Sequence[str] | None) -> str:
    """The name of a class, or a number that is a target, given as a tensor without dimensions."""
    return f"{float(y):.3g}" if y.is_floating_point() else name_of(int(y), class_names)


def drawn_rows(mapped: MemoryMap, most: int = POINTS) -> Tensor:
    """Positions of the examples that are drawn: all that are kept, the extremes, and the others evenly thinned out."""
    n = len(mapped.y)
    if n <= most:
        return torch.arange(n)
    wanted = mapped.kept.clone()
    wanted[mapped.extremes] = True
    wanted[torch.linspace(0, n - 1, max(0, most - int(wanted.sum()))).long()] = True
    return wanted.nonzero().squeeze(1)


def leverage_floor(mapped: MemoryMap) -> float:
    """The lowest leverage on the axis."""
    return LOWEST * max(float(mapped.leverages.max()), 1e-30)
