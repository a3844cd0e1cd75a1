"""Figures for TensorBoard and as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayesdual import measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesdual.memory import Exemplars
    from bayesdual.posterior import Posterior


MEMORY_FIGURE_COLUMNS = 10
WITH_NUMBERS = 20  # experiences whose accuracies are written into the heat map
WITH_NAMES = 20  # experiences whose lines are named


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # only drawn at the end; importing it takes a while

    return Figure((width, height), layout="constrained")


def accuracy_figure(matrix: measures.Matrix) -> Figure:
    """The accuracy matrix as a heat map; what was not learned yet is left empty."""
    n, learned = len(matrix[0]), len(matrix)
    few = n <= WITH_NUMBERS
    figure = new_figure(*((1.6 + 0.6 * n, 1.2 + 0.55 * learned) if few else (8, 7)))
    axes = figure.subplots()
    seen = np.tril(np.ones((learned, n), dtype=bool))
    image = axes.imshow(np.ma.masked_where(~seen, matrix), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    if few:
        for i, j in zip(*np.nonzero(seen), strict=True):
            a = matrix[i][j]
            axes.text(j, i, f"{a:.2f}", ha="center", va="center", color="white" if a < 0.6 else "black", fontsize=8)
        axes.set_xticks(range(n), [str(j + 1) for j in range(n)])
        axes.set_yticks(range(learned), [str(i + 1) for i in range(learned)])
    else:
        figure.colorbar(image, ax=axes, label="accuracy")
    axes.set_xlabel("accuracy on experience")
    axes.set_ylabel("after experience")
    return figure


def progress_figure(matrix: measures.Matrix) -> Figure:
    """How the accuracy of each experience goes on once it is learned, and the mean over those seen."""
    figure = new_figure(6, 3.6)
    axes = figure.subplots()
    steps = range(1, len(matrix) + 1)
    few = len(matrix) <= WITH_NAMES
    for j in range(len(matrix)):
        look: dict[str, Any] = {"color": "gray", "alpha": 0.3}
        if few:
            look = {"marker": "o", "alpha": 0.6, "label": f"experience {j + 1}"}
        axes.plot(steps[j:], [row[j] for row in matrix[j:]], **look)
    means = [measures.average_seen_accuracy(matrix[: i + 1]) for i in range(len(matrix))]
    axes.plot(steps, means, color="black", linewidth=2.5, label="mean of those seen")
    axes.set(xlabel="after experience", ylabel="accuracy", ylim=(0, 1.02))
    if few:
        axes.set_xticks(list(steps))
    axes.legend(fontsize=7, ncols=1 + len(matrix) // 8, loc="lower left")
    return figure


def is_images(x: Tensor) -> bool:
    """Whether inputs (M, ...) look like images, of 1 or 3 channels."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def memory_figure(exemplars: Exemplars, class_names: Sequence[str] | None = None) -> Figure:
    """The exemplars of each class in a row, the first ones kept first; above each, its score."""
    classes: Sequence[int] = exemplars.y.unique().tolist()
    height, width = exemplars.x.shape[2:]
    top, right = height // 3, width // 8 + 1  # room for the score, and between images
    canvas = torch.ones(len(classes), top + height, MEMORY_FIGURE_COLUMNS, width + right, 3)
    figure = new_figure(0.7 * MEMORY_FIGURE_COLUMNS, 0.75 * len(classes))
    axes = figure.subplots()
    for row, c in enumerate(classes):
        mine = exemplars[exemplars.y == c]
        for column in range(min(len(mine), MEMORY_FIGURE_COLUMNS)):
            image = mine.x[column].cpu().float().permute(1, 2, 0)
            low, high = image.min(), image.max()
            canvas[row, top:, column, :width] = (image - low) / (high - low).clamp_min(1e-6)
            x, y = column * (width + right) + width / 2, row * (top + height) + top - 1
            axes.text(x, y, f"{mine.scores[column]:.2g}", fontsize=6, ha="center", va="bottom")
    axes.imshow(canvas.flatten(2, 3).flatten(0, 1).numpy())
    rows = [row * (top + height) + top + height / 2 for row in range(len(classes))]
    axes.set_yticks(rows, [name_of(c, class_names) for c in classes])
    axes.set_ylabel("class")
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    return figure


def name_of(label: int, class_names: Sequence[str] | None) -> str:
    """The name of a class, its number where it has none."""
    return str(label) if class_names is None or label >= len(class_names) else class_names[label]


def losses_figure(lost: Sequence[float]) -> Figure:
    """How much accuracy on each experience is gone since it was best."""
    figure = new_figure(6, 2.4)
    axes = figure.subplots()
    axes.bar(range(1, len(lost) + 1), lost, color="#d95f02")
    if len(lost) <= WITH_NUMBERS:
        axes.set_xticks(range(1, len(lost) + 1))
        for j, value in enumerate(lost):
            axes.text(j + 1, value, f"{value:.3f}", ha="center", va="bottom", fontsize=8)
    axes.set(xlabel="experience", ylabel="accuracy lost", ylim=(0, max(0.1, 1.15 * max(lost))))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def posterior_figure(posterior: Posterior) -> Figure:
    """Standard deviations of the parameters of each layer: the middle half of them, and the median."""
    names = list(posterior.precision)
    figure = new_figure(6, 0.9 + 0.32 * len(names))
    axes = figure.subplots()
    quarters = torch.tensor([0.25, 0.5, 0.75])
    for row, name in enumerate(names):
        low, middle, high = quantiles(posterior.precision[name].float().rsqrt().flatten(), quarters).tolist()
        axes.plot([low, high], [row, row], color="#1b78b4", linewidth=6, alpha=0.4, solid_capstyle="butt")
        axes.plot(middle, row, "o", color="#1b78b4")
    if posterior.prior_precision > 0:
        axes.axvline(posterior.prior_precision**-0.5, color="gray", linestyle="--", linewidth=1, label="prior")
        axes.legend(fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("standard deviation")
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
