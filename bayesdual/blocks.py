"""Parameters, their state and a buffer, cut into blocks that are worked through one at a time.

A step that goes through all parameters once per operation fetches them from memory each time; in a block they stay in
the cache. Small parameters share a block, so that few calls are made, and large ones are cut. On a CPU threads share
the blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

Tensors = list[Tensor]

CPU_BLOCK = 3 << 17  # numbers: few enough for the cache, and enough to outweigh the calls
DEVICE_BLOCK = 1 << 24
FEW_BLOCKS = 4  # so many are done before other threads have woken up


@dataclass
class Block:
    """Pieces of parameters of one group, and the same pieces of what belongs to them."""

    number: int
    group: dict[str, Any]
    size: int = 0
    owners: Tensors = field(default_factory=list)
    parts: list[slice | None] = field(default_factory=list)  # which part of the owner; None: all
    params: Tensors = field(default_factory=list)
    buffer: Tensors = field(default_factory=list)
    hess: Tensors = field(default_factory=list)
    momentum: Tensors = field(default_factory=list)
    sampled: bool = False

    def add(self, p: Tensor, part: slice | None, buffer: Tensor, state: Mapping[str, Any]) -> None:
        self.owners.append(p)
        self.parts.append(part)
        for pieces, whole in (
            (self.params, p.detach()),
            (self.buffer, buffer),
            (self.hess, state["hess"]),
            (self.momentum, state["momentum"]),
        ):
            pieces.append(piece(whole, part))
        self.size += self.params[-1].numel()


@dataclass
class _Place:
    """Where a parameter and its state were when the blocks were cut."""

    group: dict[str, Any]
    p: Tensor
    value: Tensor
    hess: Tensor
    momentum: Tensor

    def __post_init__(self) -> None:
        self._start, self._shape = self.value.data_ptr(), self.value.shape

    def has_moved(self) -> bool:
        return self.p.data_ptr() != self._start or self.p.shape != self._shape


class Layout:
    """The blocks of some parameters.

    Args:
        params: The parameters, each with its group.
        states: ``hess`` and ``momentum`` of each, with the strides of its buffer.
        buffers: Another tensor for each.
    """

    def __init__(
        self,
        params: list[tuple[dict[str, Any], Tensor]],
        states: Mapping[Tensor, Mapping[str, Any]],
        buffers: Mapping[Tensor, Tensor],
    ) -> None:
        self.buffers = buffers
        self.places: list[_Place] = []
        self.blocks: list[Block] = []
        open_blocks: dict[Any, Block] = {}
        for group, p in params:
            self.places.append(_Place(group, p, p.detach(), states[p]["hess"], states[p]["momentum"]))
            room = CPU_BLOCK if p.device.type == "cpu" else DEVICE_BLOCK
            for part in _cut(p, room):
                size = p.numel() if part is None else part.stop - part.start
                kind = (id(group), p.device, p.dtype)
                if kind not in open_blocks or open_blocks[kind].size + size > room:
                    open_blocks[kind] = Block(len(self.blocks), group)
                    self.blocks.append(open_blocks[kind])
                open_blocks[kind].add(p, part, buffers[p], states[p])

    def is_of(self, params: list[tuple[dict[str, Any], Tensor]], states: Mapping[Tensor, Mapping[str, Any]]) -> bool:
        """Whether the blocks are those of these parameters and states, and these are where they were."""
        return len(params) == len(self.places) and all(
            place.p is p
            and place.group is group
            and not place.has_moved()
            and states[p].get("hess") is place.hess
            and states[p].get("momentum") is place.momentum
            for (group, p), place in zip(params, self.places, strict=True)
        )

    @property
    def device(self) -> torch.device:
        """That of the first parameter."""
        return self.places[0].p.device

    def follow(self) -> None:
        """Copies what stands in the blocks into parameters that have got new storage."""
        for place in self.places:
            if place.has_moved():
                place.p.copy_(place.value)

    def for_each(self, work: Callable[[Block], None]) -> None:
        """Does the work on every block; on a CPU threads share them."""
        threads = min(torch.get_num_threads(), len(self.blocks))
        if threads < 2 or len(self.blocks) < FEW_BLOCKS or self.blocks[0].params[0].device.type != "cpu":
            for block in self.blocks:
                work(block)
            return
        queue = iter(self.blocks)  # hands each block to one thread

        def drain() -> None:
            with torch.no_grad():  # the mode is the thread's own
                for block in queue:
                    work(block)

        pool = _pool(os.getpid(), torch.get_num_threads())
        tasks = [pool.submit(drain) for _ in range(threads)]
        try:
            wait(tasks)
        except BaseException:  # interrupted: nobody may work on the parameters after this
            wait(tasks)
            raise
        for task in tasks:
            task.result()


def piece(tensor: Tensor, part: slice | None) -> Tensor:
    """A part of a dense tensor, in the order of memory; all of any tensor if ``part`` is None."""
    return tensor if part is None else tensor.as_strided((tensor.numel(),), (1,))[part]


def _cut(tensor: Tensor, room: int) -> list[slice | None]:
    """Parts of at most ``room`` numbers; a tensor that is not dense stays whole."""
    size = tensor.numel()
    if size <= room or not _is_dense(tensor):
        return [None]
    return [slice(start, min(start + room, size)) for start in range(0, size, room)]


def _is_dense(tensor: Tensor) -> bool:
    """Whether the numbers fill one stretch of memory, in whatever order (``channels_last`` does)."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


@lru_cache(maxsize=4)
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """A pool of this process (threads do not survive a fork), whose threads do not share out an operation again."""
    started = Barrier(threads)

    def start() -> None:
        torch.get_num_threads()  # lets PyTorch set up the thread before it is told otherwise
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="ivon")
    wait([pool.submit(start) for _ in range(threads)])
    torch.set_num_threads(threads)  # what other threads begin with
    return pool
