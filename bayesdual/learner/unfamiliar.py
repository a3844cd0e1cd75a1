"""Data of another kind than a stream's, of which a network should say that it does not know them."""

from __future__ import annotations

from typing import Any

import torch

from bayesdual.stream import DatasetData, TensorData, experience_data, refuse_not_finite


def unfamiliar_data(benchmark: Any, stream: list[TensorData | DatasetData]) -> list[TensorData | DatasetData]:
    """The test data of another benchmark, as the network of a stream can take them.

    Args:
        benchmark: The other benchmark.
        stream: The evaluation data of the stream that is learned. Images of both are normalised by its mean and
            standard deviation.

    Raises:
        ValueError: There are none, or the network cannot take them, or an input is not finite.
    """
    data = [experience_data(e) for e in getattr(benchmark, "test_stream", ())]
    if not any(map(len, data)):
        raise ValueError("data.ood has no examples in a stream 'test': give a benchmark that has.")
    if len(torch.cat([known.tasks for known in stream]).unique()) > 1:
        raise ValueError("data.benchmark has task labels, and data of another kind have none: leave data.ood out.")
    ours = stream[0].inputs(torch.arange(1))
    for other in data:
        theirs = other.inputs(torch.arange(min(1, len(other))))
        if len(other) and (theirs.shape != ours.shape or theirs.dtype != ours.dtype):
            raise ValueError(
                f"data.ood has inputs of shape {tuple(theirs.shape[1:])} ({theirs.dtype}), and data.benchmark of shape "
                f"{tuple(ours.shape[1:])} ({ours.dtype}): give a benchmark whose inputs are alike."
            )
        if isinstance(other, TensorData):
            refuse_not_finite(other.x, torch.arange(len(other)), "the stream 'test' of data.ood")
    return [other for other in data if len(other)]
