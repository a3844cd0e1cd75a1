"""From the examples of an experience to exemplars of it, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.memory.exemplars import Exemplars, concatenate
from bayesdual.memory.plan import Plan
from bayesdual.memory.selection import Candidates, Selection, choose
from bayesdual.memory.shares import classes_or_one
from bayesdual.memory.vectors import Condenser
from bayesdual.posterior import Scored
from bayesdual.stream import ExperienceData


def candidate_rows(y: Tensor, room: Mapping[int, int], at_most: int, generator: torch.Generator) -> Tensor:
    """Positions of the examples that are looked at, class by class, where there is room for any.

    Args:
        y: Labels of the experience's examples, shape (N,).
        room: How many exemplars of each class there is room for.
        at_most: Of a class with more examples a random part is looked at, of this size, or of that of the room.
        generator: Source of randomness, on the CPU.
    """
    rows, y = [], classes_or_one(y)
    for label, n in room.items():
        mine = torch.nonzero(y == label).squeeze(1)
        most = max(at_most, n)
        if n and len(mine) > most:
            mine = mine[torch.randperm(len(mine), generator=generator)[:most].sort().values]
        rows.append(mine if n else mine[:0])
    return torch.cat(rows)


def new_exemplars(
    plan: Plan,
    data: ExperienceData,
    rows: Tensor,
    known: Scored,
    selection: Selection,
    condense: Condenser,
    generator: torch.Generator,
    likelihood: Likelihood = CATEGORICAL,
) -> Exemplars:
    """The exemplars of an experience, class by class and the most important first, made to stand for the others.

    Args:
        plan: How many of each class there is room for.
        data: The experience's examples.
        rows: Positions of the candidates, as :func:`candidate_rows` gives them.
        known: What the model says of these.
        selection: Which of them are kept.
        condense: Makes exemplars stand for the other candidates.
        generator: Source of randomness, on the CPU.
        likelihood: Of the targets.

    Raises:
        ValueError: The selection returned what it should not.
    """
    device, y = known.logits.device, classes_or_one(data.y)
    groups = []
    for label, n in plan.room.items():
        if not n:
            continue
        mine = torch.nonzero(y[rows] == label).squeeze(1)
        candidates = Candidates(known.features[mine], known.logits[mine], known.scores[mine], likelihood)
        places, weights = choose(selection, candidates, n, generator)
        exemplars = _exemplars(data, rows[mine[places]], known, mine[places], weights, plan.experience)
        others = torch.ones(len(mine), dtype=torch.bool)
        others[places] = False
        if others.any() and condense.applies_to(exemplars.x):
            x = data.inputs(rows[mine[others]]).to(device)
            alike = replace(exemplars, weights=torch.ones_like(exemplars.weights))
            exemplars = condense(alike, x, torch.ones(len(x), device=device), int((y == label).sum()))
        groups.append(exemplars)
    return concatenate(groups)


def _exemplars(
    data: ExperienceData, rows: Tensor, known: Scored, places: Tensor, weights: Tensor, experience: int
) -> Exemplars:
    """The examples at ``rows`` of the data, which are at ``places`` of what is known."""
    device = known.logits.device
    return Exemplars(
        x=data.inputs(rows).to(device),
        y=data.y[rows].to(device),
        tasks=data.tasks[rows].to(device),
        logits=known.logits[places],
        weights=weights.to(device, torch.float32),
        scores=known.scores[places],
        experience=torch.full_like(rows, experience).to(device),
        index=data.index[rows].to(device),
    )
