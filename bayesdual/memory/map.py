"""The memory map: where the examples of an experience stand once it is learned, and what the memory makes of them.

    residual   1 - p_y                  how wrong the network is about an example; of numbers sum_c |e_c|
    leverage   sum_c lambda_c v_c       how far the example moves what is said of it (``bayesdual.posterior``)

An example with both high is one that the network got wrong though it bends to it: of such the memory perturbation
equation (Nickl, Xu et al., NeurIPS 2023) says that leaving them out changes most. All is read off the pass that scores
examples for the memory; nothing is computed anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.memory.exemplars import Exemplars
from bayesdual.memory.shares import classes_or_one
from bayesdual.posterior import Scored
from bayesdual.stream import ExperienceData
from bayesdual.tensor_files import read_tensors, write_tensors

FORMAT = "bayesdual-memory-map-1"
EXTREMES = 8  # examples of the highest leverage, and of the highest residual, whose inputs are kept


@dataclass(frozen=True)
class MemoryMap:
    """Of the examples of an experience that were scored, N of them.

    Attributes:
        y: Labels, shape (N,), int64; or numbers, float32.
        residuals: Of classes between 0 and 1, shape (N,), float32.
        leverages: Shape (N,), float32; without a posterior, the sum of their lambda.
        kept: Which the memory holds, as they are or as means around them, shape (N,), bool.
        index: Positions in the source dataset, shape (N,), int64.
        extremes: Positions among the N of those of the highest leverage, then of the highest residual, each first the
            highest, shape (2 K,), int64.
        x: Inputs of the extremes, shape (2 K, ...).
        changes: A row for each class whose exemplars have changed, of any experience: class, how many came, how many
            went; shape (C, 3), int64.
    """

    y: Tensor
    residuals: Tensor
    leverages: Tensor
    kept: Tensor
    index: Tensor
    extremes: Tensor
    x: Tensor
    changes: Tensor

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file."""
        write_tensors(path, {f.name: getattr(self, f.name) for f in fields(self)}, {"format": FORMAT})

    @classmethod
    def load(cls, path: str | Path) -> MemoryMap:
        """Reads what :meth:`save` wrote; executes nothing from it.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is another file, or is damaged.
        """
        tensors, header = read_tensors(path, "memory map")
        if header.get("format") != FORMAT or tensors.keys() != {f.name for f in fields(cls)}:
            raise ValueError(f"{path} is no memory map, or of another version: delete it.")
        return cls(**tensors)


def map_memory(
    data: ExperienceData,
    rows: Tensor,
    known: Scored,
    experience: int,
    before: Exemplars | None,
    after: Exemplars | None,
    likelihood: Likelihood = CATEGORICAL,
) -> MemoryMap:
    """Maps the examples that were scored.

    Args:
        data: The experience's examples.
        rows: Positions of those that were scored, shape (N,).
        known: What the model says of these.
        experience: Index of the experience.
        before: What the memory held when it had been learned.
        after: What it holds now.
        likelihood: What targets are, given what the model says.
    """
    y, index = data.y[rows].cpu(), data.index[rows].cpu()
    f, leverages = known.logits.float().cpu(), known.scores.float().cpu()
    if likelihood.has_classes:
        residuals = 1 - likelihood.predicted(f)[torch.arange(len(y)), y]
    else:
        residuals = likelihood.residual(f, y).abs().sum(1)
    most = min(EXTREMES, len(y))
    extremes = torch.cat([leverages.topk(most).indices, residuals.topk(most).indices])
    mine = [i for _, e, i in _keys(after) if e == experience]
    return MemoryMap(
        y=y,
        residuals=residuals,
        leverages=leverages,
        kept=torch.isin(index, torch.tensor(mine, dtype=torch.int64)),
        index=index,
        extremes=extremes,
        x=data.inputs(rows[extremes]).cpu(),
        changes=_changes(_keys(before), _keys(after)),
    )


def _keys(exemplars: Exemplars | None) -> list[tuple[int, int, int]]:
    """What tells exemplars apart: class, experience, and position in the source dataset."""
    if exemplars is None:
        return []
    z = exemplars
    return list(zip(classes_or_one(z.y).tolist(), z.experience.tolist(), z.index.tolist(), strict=True))


def _changes(before: list[tuple[int, int, int]], after: list[tuple[int, int, int]]) -> Tensor:
    came = Counter(c for c, *_ in set(after) - set(before))
    went = Counter(c for c, *_ in set(before) - set(after))
    rows = [[c, came[c], went[c]] for c in sorted(came.keys() | went.keys())]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 3)
