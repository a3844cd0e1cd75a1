"""What models have besides parameters: running statistics of batch norms, and counters.

Merged statistics are those of all models' data together, weighted by the scales: of n models with means m and variances
v per channel,

    m = sum_t s_t m_t / sum_t s_t,      v = sum_t s_t (v_t + m_t^2) / sum_t s_t - m^2

A counter (``num_batches_tracked``, or any tensor of whole numbers) becomes the largest of the models. The statistics
are those of the models' activations, not of the merged one's: with data at hand, ``torch.optim.swa_utils.update_bn``
measures them afresh.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MEAN, VARIANCE = "running_mean", "running_var"


def is_statistic(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of a model is merged by the rule above, and by no method."""
    return not tensor.is_floating_point() or name.rpartition(".")[2] in (MEAN, VARIANCE)


def partner_of(name: str) -> str | None:
    """The running mean that a running variance is about; None for other names."""
    prefix, dot, last = name.rpartition(".")
    return f"{prefix}{dot}{MEAN}" if last == VARIANCE else None


def merged_mean(values: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """m above."""
    return sum((s / sum(scales) * value for s, value in zip(scales, values, strict=True)), torch.zeros_like(values[0]))


def merged_variance(variances: Sequence[Tensor], means: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """v above."""
    moments = [v + m.square() for v, m in zip(variances, means, strict=True)]
    return merged_mean(moments, scales) - merged_mean(means, scales).square()


def merged_counter(values: Sequence[Tensor]) -> Tensor:
    """The largest, entry by entry."""
    return torch.stack(list(values)).amax(0)
