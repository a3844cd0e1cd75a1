"""Figures of the memory, and of where the examples of an experience stand to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesdual.inspection.figures import name_of, new_figure
from bayesdual.memory import classes_or_one

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesdual.memory import Exemplars

MEMORY_FIGURE_COLUMNS = 10


def is_images(x: Tensor) -> bool:
    """Whether inputs (M, ...) look like images, of 1 or 3 channels."""
    return x.dim() == 4 and x.shape[1] in (1, 3)


def memory_figure(exemplars: Exemplars, class_names: Sequence[str] | None = None) -> Figure:
    """The exemplars of each class in a row, the first ones kept first; above each, its score."""
    labels = classes_or_one(exemplars.y)
    classes: Sequence[int] = labels.unique().tolist()
    height, width = exemplars.x.shape[2:]
    top, right = height // 3, width // 8 + 1  # room for the score, and between images
    canvas = torch.ones(len(classes), top + height, MEMORY_FIGURE_COLUMNS, width + right, 3)
    figure = new_figure(0.7 * MEMORY_FIGURE_COLUMNS, 0.75 * len(classes))
    axes = figure.subplots()
    for row, c in enumerate(classes):
        mine = exemplars[labels == c]
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
