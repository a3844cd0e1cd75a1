"""TensorBoard's projector: what goes into a network's last layer, of exemplars and of test examples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from bayesdual.inspection.figures import name_of
from bayesdual.inspection.memory_figures import is_images
from bayesdual.learner import Learner
from bayesdual.models import evaluating
from bayesdual.posterior import watching_last_linear

TEST_EXAMPLES = 300  # of all experiences together, evenly spread
EXEMPLARS = 300


def project(writer: SummaryWriter, learner: Learner, step: int) -> None:
    """Gives the projector features with their classes and, of images, pictures; does nothing without a linear layer."""
    x, y, t, kinds = _examples(learner)
    with torch.no_grad(), evaluating(learner.network), watching_last_linear(learner.network) as last:
        learner(x.to(learner.device), t.to(learner.device))
    if last.features is None or last.features.dim() != 2:
        return
    writer.add_embedding(
        last.features.cpu(),
        metadata=[[kind, name_of(c, learner.classes or None)] for c, kind in zip(y.tolist(), kinds, strict=True)],
        metadata_header=["kind", "class" if learner.likelihood.has_classes else "target"],
        label_img=_shades(x) if is_images(x) else None,
        global_step=step,
        tag="features",
    )


def _examples(learner: Learner) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Inputs, labels, task labels, and what each is."""
    evaluated = learner.stream.evaluation_data(learner.stream.evaluate_on)
    each = max(1, TEST_EXAMPLES // len(evaluated))
    parts, kinds = [], []
    for data in evaluated:
        rows = torch.linspace(0, len(data.y) - 1, min(each, len(data.y))).long()
        parts.append((data.inputs(rows), data.y[rows], data.tasks[rows]))
        kinds += ["test"] * len(rows)
    kept = learner.algorithm.memory.exemplars
    if kept is not None:
        rows = torch.linspace(0, len(kept) - 1, min(EXEMPLARS, len(kept))).long()
        some = kept.to("cpu")[rows]
        parts.append((some.x, some.y, some.tasks))
        kinds += ["exemplar"] * len(rows)
    x, y, t = (torch.cat([part[i].cpu() for part in parts]) for i in range(3))
    return x, y, t, kinds


def _shades(x: Tensor) -> Tensor:
    """Images (N, 1 or 3, H, W) of any range as pictures (N, 3, H, W) between 0 and 1, each from its darkest."""
    shades = x.float()
    low, high = shades.amin((1, 2, 3), keepdim=True), shades.amax((1, 2, 3), keepdim=True)
    return ((shades - low) / (high - low).clamp_min(1e-6)).expand(-1, 3, -1, -1)
