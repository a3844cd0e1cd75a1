"""How much a model relies on each example, read off its posterior.

With p the predicted probabilities, y the one-hot label and v = diag(J Sigma J^T) the variance of the logits:

    residual   e_c = p_c - y_c
    lambda     lambda_c = p_c (1 - p_c)                     the curvature of the loss (FROMP: score sum_c lambda_c)
    leverage   sum_c lambda_c v_c                           how far the example moves its own prediction
    MPE        sum_c |e_c lambda_c v_c|                     Nickl, Xu et al., NeurIPS 2023
    LOO        softmax(f + v * e)                           what the model would say, had it not seen the example

An example that the model is sure of scores near 0 in all of them. The mean over training examples of the negative
log-likelihood of the leave-one-out predictions (LOO-NLL) estimates that of test data, without any.

The posterior must be that of the sum of the losses of all examples, as IVON's with ess = their number is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.posterior.checks import HasVariance
from bayesdual.posterior.function_variance import function_variance
from bayesdual.posterior.one_task import OneTask
from bayesdual.stream import ExperienceData, Predict


def curvature(probabilities: Tensor) -> Tensor:
    """Returns lambda, shape (B, C), of predicted probabilities of the same shape."""
    return probabilities * (1 - probabilities)


def residual(probabilities: Tensor, y: Tensor) -> Tensor:
    """Returns the residual e = p - y, shape (B, C).

    Args:
        probabilities: Predicted probabilities, shape (B, C).
        y: Labels, shape (B,).
    """
    return probabilities - F.one_hot(y, probabilities.shape[1])


def leverage(probabilities: Tensor, variance: Tensor) -> Tensor:
    """Returns the leverage of each example, shape (B,).

    Args:
        probabilities: Predicted probabilities, shape (B, C).
        variance: Variance of the logits, shape (B, C).
    """
    return (curvature(probabilities) * variance).sum(1)


def memory_perturbation(probabilities: Tensor, y: Tensor, variance: Tensor) -> Tensor:
    """Returns the MPE score of each example, shape (B,).

    Args:
        probabilities: Predicted probabilities, shape (B, C).
        y: Labels, shape (B,).
        variance: Variance of the logits, shape (B, C).
    """
    return (residual(probabilities, y) * curvature(probabilities) * variance).abs().sum(1)


def leave_one_out_logits(logits: Tensor, y: Tensor, variance: Tensor) -> Tensor:
    """Logits that the model would give each example, had it been trained without it: f + v * e, shape (B, C).

    To first order; Nickl, Xu et al., "The memory perturbation equation", NeurIPS 2023. Their softmax is the
    leave-one-out prediction.

    Args:
        logits: Logits, shape (B, C).
        y: Labels, shape (B,).
        variance: Variance of the logits, shape (B, C).
    """
    return logits + variance * residual(logits.softmax(1), y)


def leave_one_out_nll(logits: Tensor, y: Tensor, variance: Tensor) -> Tensor:
    """Negative log-likelihood of each label under its leave-one-out prediction, in nats, shape (B,).

    Arguments are those of `leave_one_out_logits`.
    """
    return F.cross_entropy(leave_one_out_logits(logits, y, variance), y, reduction="none")


@dataclass(frozen=True)
class Sensitivities:
    """What the posterior says of each of N' examples, aligned with each other, on the CPU.

    Attributes:
        rows: Position of each in its data, shape (N',), int64.
        curvature: sum_c lambda_c, shape (N',).
        leverage: Shape (N',).
        memory_perturbation: MPE score, shape (N',).
        nll: Negative log-likelihood of the label, in nats, shape (N',).
        loo_nll: The same under the leave-one-out prediction, shape (N',).
    """

    rows: Tensor
    curvature: Tensor
    leverage: Tensor
    memory_perturbation: Tensor
    nll: Tensor
    loo_nll: Tensor


def sensitivities(
    model: nn.Module,
    data: ExperienceData,
    posterior: HasVariance,
    *,
    predict: Predict | None = None,
    rows: slice = slice(None),
    batch_size: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivities:
    """Goes once through examples and notes how much the model relies on each, by the exact variance of its logits.

    Args:
        model: The network, in eval mode, at the posterior's mean.
        data: The examples; only a batch of their inputs is held at a time.
        posterior: What has a variance by parameter name of ``model`` (see `function_variance`).
        predict: Logits (B, C) of raw inputs (B, ...) and task labels (B,), by calling ``model``; None: ``model`` takes
            the raw inputs.
        rows: Which examples. ``slice(rank, None, ranks)`` is the share of one of several processes; concatenated, the
            shares are the whole, and ``rows`` of the result tells in which order.
        batch_size: Examples at a time.
        progress: Called after each batch with the number of examples done, and of all that are to be done.

    Raises:
        ValueError: ``rows`` selects no example, ``batch_size`` is not positive, or `function_variance` refuses.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give at least 1.")
    wanted = torch.arange(len(data.y))[rows]
    if len(wanted) == 0:
        raise ValueError(f"{rows} selects none of the {len(data.y)} examples: give a start within them.")
    device = next(model.parameters()).device
    parts, done = [], 0
    for batch in wanted.split(batch_size):
        for task in data.tasks[batch].unique():  # function_variance knows inputs only, so one task at a time
            some = batch[data.tasks[batch] == task]
            parts.append(_sensitivities(model, data, some, task.to(device), posterior, predict))
        done += len(batch)
        if progress is not None:
            progress(done, len(wanted))
    whole = [torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Sensitivities)]
    order = whole[0].argsort()
    return Sensitivities(*(values[order] for values in whole))


def _sensitivities(
    model: nn.Module,
    data: ExperienceData,
    rows: Tensor,
    task: Tensor,
    posterior: HasVariance,
    predict: Predict | None,
) -> Sensitivities:
    x, y = data.inputs(rows).to(task.device), data.y[rows].to(task.device)
    if predict is not None:
        posterior = _Variances({f"model.{name}": v for name, v in posterior.variance.items()})
        model = OneTask(model, predict, task)
    v = function_variance(model, x, posterior)
    with torch.no_grad():
        f = model(x).to(v.dtype)
    p = f.softmax(1)
    values = (
        rows,
        curvature(p).sum(1),
        leverage(p, v),
        memory_perturbation(p, y, v),
        F.cross_entropy(f, y, reduction="none"),
        leave_one_out_nll(f, y, v),
    )
    return Sensitivities(*(value.cpu() for value in values))


class _Variances(NamedTuple):
    variance: Mapping[str, Tensor]
