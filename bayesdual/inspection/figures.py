"""Figures for TensorBoard and as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesdual import measures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesdual.memory import Exemplars


MEMORY_FIGURE_COLUMNS = 10


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # only drawn at the end; importing it takes a while

    return Figure((width, height), layout="constrained")


def accuracy_figure(matrix: measures.Matrix) -> Figure:
    """The accuracy matrix as a heat map."""
    n = len(matrix[0])
    figure = new_figure(1.6 + 0.6 * n, 1.2 + 0.55 * len(matrix))
    axes = figure.subplots()
    axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for i, row in enumerate(matrix):
        for j, a in enumerate(row):
            axes.text(j, i, f"{a:.2f}", ha="center", va="center", color="white" if a < 0.6 else "black", fontsize=8)
    axes.set_xticks(range(n), [str(j + 1) for j in range(n)])
    axes.set_yticks(range(len(matrix)), [str(i + 1) for i in range(len(matrix))])
    axes.set_xlabel("accuracy on experience")
    axes.set_ylabel("after experience")
    return figure


def progress_figure(matrix: measures.Matrix) -> Figure:
    """How the accuracy of each experience goes on once it is learned, and the mean over those seen."""
    figure = new_figure(6, 3.6)
    axes = figure.subplots()
    steps = range(1, len(matrix) + 1)
    for j in range(len(matrix)):
        axes.plot(steps[j:], [row[j] for row in matrix[j:]], marker="o", alpha=0.6, label=f"experience {j + 1}")
    means = [measures.average_seen_accuracy(matrix[: i + 1]) for i in range(len(matrix))]
    axes.plot(steps, means, color="black", linewidth=2.5, label="mean of those seen")
    axes.set(xlabel="after experience", ylabel="accuracy", ylim=(0, 1.02), xticks=list(steps))
    axes.legend(fontsize=7, ncols=1 + len(matrix) // 8, loc="lower left")
    return figure


def is_images(x: Tensor) -> bool:
    """Whether inputs (M, ...) look like images, of 1 or 3 channels."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def memory_figure(exemplars: Exemplars) -> Figure:
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
    axes.set_yticks([row * (top + height) + top + height / 2 for row in range(len(classes))], [str(c) for c in classes])
    axes.set_ylabel("class")
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    return figure
