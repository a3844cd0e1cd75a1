"""Parameters with their state and a buffer, in blocks that are worked through one at a time.

A step that goes through all parameters once per operation fetches them from memory each time; in a block they stay in
the cache. What belongs to the parameters stands in one flat tensor of each kind, in their order, and a block is a
stretch of it, so that few calls are made however small the parameters are; these keep their own storage.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor

from bayesdual.ivon.scratch import spare
from bayesdual.rounding import HALVES, at_least_single
from bayesdual.tensors import grow_into_

Tensors = list[Tensor]
Groups = list[dict[str, Any]]  # an optimizer's
States = MutableMapping[Tensor, dict[str, Any]]
CPU_BLOCK = 3 << 17  # numbers: few enough for the cache, and enough to outweigh the calls
DEVICE_BLOCK = 1 << 24


class Piece:
    """A parameter, or a part of one in the order of memory.

    Args:
        owner: The parameter.
        part: Which part of it; None: all.
    """

    def __init__(self, owner: Tensor, part: slice | None = None) -> None:
        self.owner, self.part = owner, part
        self.value = self.of(owner.detach())
        self.size, self.shape = self.value.numel(), self.value.shape
        self.strides = self.value.stride() if _is_dense(self.value) else torch.empty(self.shape, device="meta").stride()

    def of(self, like: Tensor) -> Tensor:
        """The same part of a tensor of the shape and strides of the parameter."""
        return like if self.part is None else _in_memory_order(like)[self.part]

    def within(self, flat: Tensor, start: int) -> Tensor:
        """What stands at ``start`` of a flat tensor, in the shape of the piece."""
        return flat.as_strided(self.shape, self.strides, flat.storage_offset() + start)


class Block:
    """Pieces of parameters of one group, and a flat tensor of each kind of what belongs to them.

    Args:
        number: Which block this is.
        group: The group.
        pieces: The pieces, in the order of the flat tensors.
        hess: Their Hessians.
        momentum: Their momenta.
        buffer: As large.
        mean: Their means, where the parameters are of 16 bits and hold them rounded.
    """

    def __init__(
        self,
        number: int,
        group: dict[str, Any],
        pieces: list[Piece],
        hess: Tensor,
        momentum: Tensor,
        buffer: Tensor,
        mean: Tensor | None = None,
    ) -> None:
        self.number, self.group, self.pieces = number, group, pieces
        self.hess, self.momentum, self.buffer, self.mean = hess, momentum, buffer, mean
        self.starts = list(accumulate((piece.size for piece in pieces), initial=0))
        self.owners = [piece.owner for piece in pieces]
        self.params = [piece.value for piece in pieces]
        self.means = self.params if mean is None else self.split(mean)
        self.momenta, self.kept = self.split(momentum), self.split(buffer)
        self._spares: dict[tuple[str, int], tuple[Tensor, Tensors]] = {}
        self.sampled = False

    def split(self, flat: Tensor) -> Tensors:
        """A flat tensor of the block, piece by piece."""
        return [piece.within(flat, start) for piece, start in zip(self.pieces, self.starts, strict=False)]

    def parts_of(self, tensors: Mapping[Tensor, Tensor]) -> Tensors:
        """Of tensors given by parameter, the parts that belong to the pieces."""
        return [piece.of(tensors[piece.owner]) for piece in self.pieces]

    def spare(self, name: str) -> tuple[Tensor, Tensors]:
        """A flat tensor for what is needed for a moment, and the same piece by piece."""
        key = name, threading.get_ident()
        if key in self._spares:
            return self._spares[key]
        flat = spare(name, self.starts[-1], self.hess.dtype, self.hess.device)
        both = flat, self.split(flat)
        if flat.device.type == "cpu":  # elsewhere it is to be given back
            self._spares[key] = both
        return both

    def having(self, grads: Mapping[Tensor, Tensor]) -> Iterator[Block]:
        """The stretches of the block whose parameters have a gradient: the block itself, if all have."""
        if all(p in grads for p in self.owners):
            yield self
            return
        for has, members in groupby(range(len(self.pieces)), lambda i: self.owners[i] in grads):
            places = list(members)
            if has:
                first, stop = places[0], places[-1] + 1
                stretch = slice(self.starts[first], self.starts[stop])
                hess, momentum, buffer = (flat[stretch] for flat in (self.hess, self.momentum, self.buffer))
                mean = None if self.mean is None else self.mean[stretch]
                yield Block(self.number, self.group, self.pieces[first:stop], hess, momentum, buffer, mean)


@dataclass
class _Place:
    """Where a parameter and its state were when the blocks were cut."""

    group: dict[str, Any]
    p: Tensor
    value: Tensor
    state: dict[str, Tensor]

    def __post_init__(self) -> None:
        self._start, self._shape = self.value.data_ptr(), self.value.shape

    def has_moved(self) -> bool:
        return self.p.data_ptr() != self._start or self.p.shape != self._shape


def trainable(groups: Groups) -> list[tuple[dict[str, Any], Tensor]]:
    """The parameters that are not frozen, each with its group."""
    return [(group, p) for group in groups for p in group["params"] if p.requires_grad]


class Layout:
    """The blocks of an optimizer's trainable parameters.

    Args:
        groups: The parameter groups.
        states: ``hess`` and ``momentum`` of each, as far as there are any; afterwards they are parts of the blocks.
            What is new of a parameter starts with its group's ``hess_init``, and with 0. Those of 16 bits also have
            a ``mean``.

    Raises:
        ValueError: A state is larger than its parameter.
    """

    def __init__(self, groups: Groups, states: States) -> None:
        self.groups = groups
        params = trainable(groups)
        self.places: list[_Place] = []
        self.blocks: list[Block] = []
        self.buffers: dict[Tensor, Tensor] = {}
        alike: dict[Any, list[tuple[dict[str, Any], Tensor]]] = {}
        for group, p in params:
            alike.setdefault((id(group), p.device, p.dtype), []).append((group, p))
        for members in alike.values():
            self._lay_out(members, states)
        order = {p: i for i, (_, p) in enumerate(params)}
        self.places.sort(key=lambda place: order[place.p])

    def _lay_out(self, params: list[tuple[dict[str, Any], Tensor]], states: States) -> None:
        """Makes the blocks of parameters of one group, device and type."""
        total = sum(p.numel() for _, p in params)
        group, first = params[0]
        fills = {"hess": group["hess_init"], "momentum": 0.0} | ({"mean": 0.0} if first.dtype in HALVES else {})
        dtype = at_least_single(first.dtype)
        flats = {name: first.new_empty(total, dtype=dtype, requires_grad=False) for name in (*fills, "buffer")}
        buffer = flats["buffer"]
        room = CPU_BLOCK if buffer.device.type == "cpu" else DEVICE_BLOCK
        pieces: list[list[Piece]] = []
        start = size = 0
        for group, p in params:
            whole, state = Piece(p), states[p]
            mine = {name: whole.within(flats[name], start) for name in fills}
            for name, fill in fills.items():
                grow_into_(mine[name], state.get(name), fill)
            state.pop("mean", None)  # of a parameter that was of 16 bits
            state |= mine
            self.buffers[p] = whole.within(buffer, start)
            self.places.append(_Place(group, p, whole.value, mine))
            start += whole.size
            for piece in [Piece(p, part) for part in _cut(whole.value, room)]:
                if not pieces or size + piece.size > room:
                    pieces.append([])
                    size = 0
                pieces[-1].append(piece)
                size += piece.size
        stop = 0
        for members in pieces:
            start, stop = stop, stop + sum(piece.size for piece in members)
            mine = {name: flat[start:stop] for name, flat in flats.items()}
            self.blocks.append(Block(len(self.blocks), group, members, **mine))

    def is_of(self, groups: Groups, states: States) -> bool:
        """Whether the blocks are those of these parameters and states, and these are where they were."""
        params = trainable(groups)
        return len(params) == len(self.places) and all(
            place.p is p
            and place.group is group
            and not place.has_moved()
            and all(states[p].get(name) is mine for name, mine in place.state.items())
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

    def show(self, tensors: Mapping[Tensor, Tensor]) -> None:
        """Lets each parameter stand for another tensor of its shape; its own memory is left alone."""
        for place in self.places:
            place.p.data = tensors[place.p]

    def show_means(self, shown: Mapping[Tensor, Tensor]) -> None:
        """Lets the parameters stand for their own memory again; those that were moved meanwhile get a copy of it."""
        for place in self.places:
            if place.p.data_ptr() in (shown[place.p].data_ptr(), place.value.data_ptr()):
                place.p.data = place.value
            else:
                place.p.copy_(place.value)


def _cut(tensor: Tensor, room: int) -> list[slice | None]:
    """Parts of at most ``room`` numbers; a tensor that is not dense stays whole."""
    size = tensor.numel()
    if size <= room or not _is_dense(tensor):
        return [None]
    return [slice(start, min(start + room, size)) for start in range(0, size, room)]


def _in_memory_order(dense: Tensor) -> Tensor:
    return dense.as_strided((dense.numel(),), (1,))


def _is_dense(tensor: Tensor) -> bool:
    """Whether the numbers fill one stretch of memory, in whatever order (``channels_last`` does)."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
