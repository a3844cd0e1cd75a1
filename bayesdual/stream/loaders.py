"""Batches of an experience: by indexing of tensors, or of a dataset through a ``DataLoader``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset

from bayesdual.stream.experience import Batch, DatasetData, TensorData


class Labelled(Dataset):
    """A dataset whose items are (input, label, task label), whatever else its own items hold."""

    def __init__(self, dataset: Any, data: DatasetData) -> None:
        self._dataset, self._y, self._tasks = dataset, data.y, data.tasks

    def __len__(self) -> int:
        return len(self._y)

    def __getitem__(self, i: int) -> Batch:
        return self._dataset[i][0], self._y[i], self._tasks[i]


class TensorLoader:
    """Batches of tensors by indexing; a shard of them on each rank.

    Args:
        data: The examples.
        batch_size: Examples of a batch, on each rank.
        seed: Seed of the order; None: the order of the data.
        rank: Which shard is this one's.
        ranks: Number of shards. In shuffled order all shards have the same number of batches, the last examples
            going twice if they must; in the data's order no example goes twice.
    """

    def __init__(
        self, data: TensorData, batch_size: int, seed: int | None = None, rank: int = 0, ranks: int = 1
    ) -> None:
        self._data = data
        self._batch_size = batch_size
        if seed is None:
            self._rows = torch.arange(rank, len(data), ranks)
        else:
            rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
            as_many_each = torch.arange(-(-len(data) // ranks) * ranks) % max(1, len(data))
            self._rows = rows[as_many_each][rank::ranks]

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        data = self._data
        for rows in self._rows.split(self._batch_size):
            yield data.x.index_select(0, rows), data.y[rows], data.tasks[rows]  # faster than x[rows]
