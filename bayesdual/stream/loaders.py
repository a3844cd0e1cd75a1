"""Batches of an experience: by indexing of tensors, or of a dataset through a ``DataLoader``, in an order of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bayesdual.random_state import kept_state_of_cpu, seed_cpu
from bayesdual.stream.checks import refuse_not_finite, stacked
from bayesdual.stream.experience import Batch, DatasetData, TensorData
from bayesdual.stream.parts import Parts


def shard(n: int, seed: int | None = None, rank: int = 0, ranks: int = 1) -> Tensor:
    """The rows of an epoch that are one rank's, in their order.

    Args:
        n: Number of examples.
        seed: Seed of the order; None: the order of the data.
        rank: Which shard is this one's.
        ranks: Number of shards. In shuffled order all shards are of the same size, the last examples going twice if
            they must; in the data's order no example goes twice.

    Returns:
        Shape (at most ceil(n / ranks),), int64.
    """
    if seed is None:
        return torch.arange(rank, n, ranks)
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    as_many_each = torch.arange(-(-n // ranks) * ranks) % max(1, n)
    return rows[as_many_each][rank::ranks]


def weights_in_mean(n: int, rank: int, ranks: int) -> Tensor | None:
    """What the examples of a rank count in the mean over a batch of which each rank has its shard.

    The mean over ranks of each one's weighted sum is the mean over the batch; an example that goes twice counts once.

    Args:
        n: Number of examples in the batch, on all ranks.
        rank: Which shard is this one's; see :func:`shard`.
        ranks: Number of shards.

    Returns:
        Shape (ceil(n / ranks),), float64; or None where all count the same.
    """
    if n % ranks == 0:
        return None
    return (torch.arange(rank, -(-n // ranks) * ranks, ranks) < n).double() * (ranks / n)


class TensorLoader:
    """Batches of tensors by indexing; a shard of them on each rank.

    Args:
        data: The examples.
        batch_size: Examples of a batch, on each rank.
        seed: Seed of the order; None: the order of the data.
        rank: Which shard is this one's; see :func:`shard`.
        ranks: Number of shards.
        first: The batch to begin with, counted from 0.
    """

    def __init__(
        self, data: TensorData, batch_size: int, seed: int | None = None, rank: int = 0, ranks: int = 1, first: int = 0
    ) -> None:
        self._data = data
        self._batches = shard(len(data), seed, rank, ranks).split(batch_size)[first:]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        data = self._data
        for rows in self._batches:
            yield data.x.index_select(0, rows), data.y[rows], data.tasks[rows]  # faster than x[rows]


class DatasetLoader:
    """Batches of a dataset through a ``DataLoader``; a shard of them on each rank.

    They are the same each time it is gone through, whoever reads them: what augmentation draws for an example follows
    from the seed and the example's place, so that neither workers nor ranks, nor where it begins, make a difference.
    Lightning takes a ``DataLoader`` apart, to put samplers of its own into it; this it leaves as it is.

    Args:
        data: The examples.
        batch_size: Examples of a batch, on each rank.
        seed: Seed of the order and of augmentation; None: the order of the data, without augmentation.
        rank: Which shard is this one's; see :func:`shard`.
        ranks: Number of shards.
        first: The batch to begin with, counted from 0.
        workers: Processes that read.

    Raises:
        ValueError: While it is gone through: an input is not finite, or a label is not what the targets say.
    """

    def __init__(
        self,
        data: DatasetData,
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        first: int = 0,
        workers: int = 0,
    ) -> None:
        self._data = data
        self._items = Items(data.plain if seed is None else data.augmented, seed)
        self._batches = shard(len(data), seed, rank, ranks).split(batch_size)[first:]
        self._workers = workers

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        data = self._data
        loader = DataLoader(
            self._items,
            batch_sampler=[rows.tolist() for rows in self._batches],
            num_workers=self._workers,
            collate_fn=partial(_collated, name=data.name, parts=data.parts),
            generator=torch.Generator(),  # else it would draw from the global one
        )
        for rows, (x, y) in zip(self._batches, loader, strict=True):
            refuse_not_finite(x, rows, data.name, data.parts)
            y = y.to(data.y.dtype)
            if not torch.equal(y, data.y[rows]):
                row = int(rows[y != data.y[rows]][0])
                raise ValueError(
                    f"example {row} (counted from 0) of {data.name} has another label than its targets say: give each "
                    "item the label of its target, by a target transform that is a function of the target."
                )
            yield x, y, data.tasks[rows]


class Items(Dataset):
    """A dataset whose items are (input, label), whatever else its own items hold.

    Args:
        dataset: The dataset.
        seed: Seed of what its transforms draw from the generators of the CPU; None: they draw nothing.
    """

    def __init__(self, dataset: Any, seed: int | None) -> None:
        self._dataset = dataset
        self._seed = seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        x, y, *_ = self._dataset[i]
        return x, int(y)

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[Any, int]]:
        """A batch, as PyTorch asks for it."""
        if self._seed is None:
            return [self[i] for i in rows]
        with kept_state_of_cpu():
            return [self._drawn(i) for i in rows]

    def _drawn(self, i: int) -> tuple[Any, int]:
        digest = hashlib.blake2b(f"{self._seed} {i}".encode(), digest_size=8).digest()
        seed_cpu(int.from_bytes(digest, "little"))
        return self[i]


def _collated(items: Sequence[tuple[Any, int]], name: str, parts: Parts | None) -> tuple[Tensor, Tensor]:
    return stacked([x for x, _ in items], name, parts), torch.tensor([y for _, y in items])
