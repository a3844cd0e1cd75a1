"""Coverage over a stream: sets of labels recalibrated from a memory after each experience.

A memory keeps examples z of each experience that are never trained on; z stands for w_z past examples. After an
experience the network scores them anew, and with alpha the share of errors allowed,

    one threshold    q   = the weighted quantile (``quantile.py``) of the scores of all z
    by experience    q_e = that of those from experience e,      set(x) = {y : s(x, y) <= q_e(y)}

where e(y) is the experience that brought the label y (of several, the largest threshold counts). The first covers over
all past examples together; the second in each experience, so that a label that is being forgotten is held on to.

Examples that are trained on or replayed do not do: the network knows them better than those to come, and the sets are
too small. Sources: Vovk, 2003 (a quantile for each group: Mondrian); Tibshirani et al., NeurIPS 2019 (weights).
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from bayesdual.conformal.quantile import conformal_quantile
from bayesdual.memory import Exemplars, Memory
from bayesdual.stream import ExperienceData


def keep_for_calibration(memory: Memory, data: ExperienceData, experience: int, generator: Generator) -> None:
    """Takes a random part of an experience's examples into a memory that is used for nothing else.

    Args:
        memory: Shared out fairly over classes and experiences, as every memory is.
        data: Examples that were not trained on.
        experience: Its index.
        generator: Source of randomness, on the CPU.

    Raises:
        ValueError: The memory is smaller than the number of classes seen.
    """
    plan = memory.plan(data.y, experience, generator)
    order = torch.randperm(len(data.y), generator=generator)
    rows = torch.cat([order[data.y[order] == label][:n] for label, n in plan.room.items()])
    alike = torch.ones(len(rows))
    new = Exemplars(
        x=data.inputs(rows),
        y=data.y[rows],
        tasks=data.tasks[rows],
        logits=alike.new_empty(len(rows), 0),
        weights=alike,
        scores=alike,
        experience=torch.full_like(rows, experience),
        index=data.index[rows],
    )
    memory.take_in(plan, new, generator)


def one_threshold(scores: Tensor, z: Exemplars, alpha: float) -> Tensor:
    """The same threshold for every label.

    Args:
        scores: Nonconformity of each label, for each exemplar, shape (M, C).
        z: The exemplars.
        alpha: Share of errors that is allowed.

    Returns:
        Shape (C,): a label is in the set where its score is at most its threshold.

    Raises:
        ValueError: There are too few exemplars for ``alpha``, or it is out of its range.
    """
    q = conformal_quantile(scores.gather(1, z.y[:, None])[:, 0], alpha, z.weights)
    return scores.new_full((scores.shape[1],), q)


def thresholds_by_experience(scores: Tensor, z: Exemplars, alpha: float) -> Tensor:
    """A threshold for each label, of the experience that brought it; labels not seen are in no set.

    Arguments, returns and errors are those of :func:`one_threshold`; there must be enough exemplars of each experience.
    """
    own = scores.gather(1, z.y[:, None])[:, 0]
    thresholds = scores.new_full((scores.shape[1],), -math.inf)
    for experience in z.experience.unique():
        rows = z.experience == experience
        try:
            q = conformal_quantile(own[rows], alpha, z.weights[rows])
        except ValueError as error:
            raise ValueError(f"experience {int(experience) + 1}: {error}") from None
        labels = z.y[rows].unique()
        thresholds[labels] = thresholds[labels].clamp_min(q)
    return thresholds
