"""Heads of different classes, joined: one row for each class that any model has.

A class that one model has keeps its row; of one that several have it is the average of theirs, weighted by the scales;
of one that only the base has it is the base's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Shapes = Mapping[str, torch.Size]


def heads_of(base: Shapes, models: Sequence[Shapes], classes: Sequence[Sequence[int]] | None) -> set[str]:
    """The names of the tensors that have a row for each class, and not the same classes everywhere.

    They are those that differ in their number of rows and in nothing else; where classes are given and the numbers are
    equal, those of the last layer with so many rows.

    Args:
        base: Shapes of the base's tensors, by name.
        models: Shapes of the models' tensors.
        classes: The classes of each model's rows.
    """
    every = [base, *models]
    different = {
        name
        for name, shape in base.items()
        if shape and len({shapes[name] for shapes in every}) > 1 and len({s[name][1:] for s in every}) == 1
    }
    if classes is None or different:
        return different
    of_size = [
        name
        for name, shape in base.items()
        if shape and all(s[name][0] == len(rows) for s, rows in zip(models, classes, strict=True))
    ]
    last = of_size[-1].rpartition(".")[0] if of_size else None
    return {name for name in of_size if name.rpartition(".")[0] == last}


def joined(
    base: Tensor,
    models: Sequence[Tensor],
    classes: Sequence[Sequence[int]] | None,
    scales: Sequence[float],
    add: bool = False,
) -> Tensor:
    """The rows of all classes.

    Args:
        base: Shape (C_0, ...); row c is that of class c.
        models: Shapes (C_t, ...).
        classes: The class of each of these rows; None: row c is that of class c.
        scales: s_t.

    Returns:
        Shape (C, ...): C is one more than the largest class.

    Raises:
        ValueError: Rows and classes are not as many, a class is listed twice, or none has a class below the largest.
    """
    lists = [list(range(len(m))) for m in models] if classes is None else [list(rows) for rows in classes]
    for rows, model in zip(lists, models, strict=True):
        if len(rows) != len(model) or len({*rows}) != len(rows) or min(rows, default=0) < 0:
            raise ValueError(f"classes {rows} are given for a head of {len(model)} rows: give one class for each row.")
    total = max(len(base), *(1 + max(rows) for rows in lists))
    result = base.new_zeros(total, *base.shape[1:])
    weight = base.new_zeros(total)
    for rows, model, s in zip(lists, models, scales, strict=True):
        result[rows] += s * model
        weight[rows] += s
    known = weight > 0
    if not bool(known[len(base) :].all()):
        missing = int((~known).nonzero()[-1])
        raise ValueError(f"no model has class {missing}, and there is a larger one: list the classes of each model.")
    result[known] /= weight[known].view(-1, *[1] * (base.dim() - 1))
    result[: len(base)][~known[: len(base)]] = base[~known[: len(base)]]
    return result
