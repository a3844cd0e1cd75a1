"""How an optimizer's parameters are cut into blocks.

Where processes share out parameters, the blocks are cut as if all were here, so that the noise of a block is the same
however many processes there are; each has its part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bayesdual.ivon.blocks import Block, Groups, Piece, States, is_dense
from bayesdual.ivon.shards import is_shared_out, local, modules_that_gather, part_of, shared_out_as, stretch
from bayesdual.rounding import HALVES, at_least_single
from bayesdual.tensors import grow_into_

CPU_BLOCK = 3 << 17  # numbers: few enough for the cache, and enough to outweigh the calls
DEVICE_BLOCK = 1 << 24


@dataclass
class _Share:
    """What comes into a block: its pieces here, and where they stand among those of all processes."""

    size: int = 0  # in all processes
    pieces: list[Piece] = field(default_factory=list)
    stretches: list[slice] = field(default_factory=list)


@dataclass
class _Place:
    """Where a parameter and its state were when the blocks were cut."""

    group: dict[str, Any]
    p: Tensor
    value: Tensor
    state: dict[str, Tensor]

    def __post_init__(self) -> None:
        self._start, self._shape = self.value.data_ptr(), self.value.shape

    @property
    def now(self) -> Tensor:
        """What is here of the parameter."""
        return local(self.p.detach())

    def has_moved(self) -> bool:
        now = self.now
        return now.data_ptr() != self._start or now.shape != self._shape


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
        self._modules = modules_that_gather() if any(is_shared_out(p) for _, p in params) else []
        self._overwritten: dict[Tensor, Tensor] = {}  # means of parameters that are shared out, while another is shown
        self._count = 0  # of blocks, with those of which nothing is here
        alike: dict[Any, list[tuple[dict[str, Any], Tensor]]] = {}
        for group, p in params:
            alike.setdefault((id(group), p.device, p.dtype), []).append((group, p))
        for members in alike.values():
            self._lay_out(members, states)
        order = {p: i for i, (_, p) in enumerate(params)}
        self.places.sort(key=lambda place: order[place.p])

    def _lay_out(self, params: list[tuple[dict[str, Any], Tensor]], states: States) -> None:
        """Makes the blocks of parameters of one group, device and type."""
        group, first = params[0][0], local(params[0][1].detach())
        total = sum(local(p.detach()).numel() for _, p in params)
        fills = {"hess": group["hess_init"], "momentum": 0.0} | ({"mean": 0.0} if first.dtype in HALVES else {})
        dtype = at_least_single(first.dtype)
        flats = {name: first.new_empty(total, dtype=dtype, requires_grad=False) for name in (*fills, "buffer")}
        buffer = flats["buffer"]
        room = CPU_BLOCK if buffer.device.type == "cpu" else DEVICE_BLOCK
        shares: list[_Share] = []
        start = 0
        for _, p in params:
            whole, state = Piece(p), states[p]
            mine = {name: whole.within(flats[name], start) for name in fills}
            for name, fill in fills.items():
                grow_into_(mine[name], part_of(p, state.get(name)), fill)
            mine = {name: shared_out_as(p, value) for name, value in mine.items()}
            state.pop("mean", None)  # of a parameter that was of 16 bits
            state |= mine
            self.buffers[p] = whole.within(buffer, start)
            self.places.append(_Place(group, p, whole.value, mine))
            start += whole.size
            for part in _cut(p, room):
                size = p.numel() if part is None else part.stop - part.start
                if not shares or shares[-1].size + size > room:
                    shares.append(_Share())
                _add(shares[-1], p, part, size)
        stop, is_spread = 0, any(is_shared_out(p) for _, p in params)
        for share in shares:
            start, stop = stop, stop + sum(piece.size for piece in share.pieces)
            mine = {name: flat[start:stop] for name, flat in flats.items()}
            everywhere = (share.size, share.stretches) if is_spread else None
            if share.pieces:
                self.blocks.append(Block(self._count, group, share.pieces, **mine, everywhere=everywhere))
            self._count += 1

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

    def gather_again(self) -> None:
        """Lets modules that have gathered their parameters from all processes forget them: they have changed."""
        for module in (known() for known in self._modules):
            if module is not None:
                module.reshard()

    def follow(self) -> None:
        """Copies what stands in the blocks into parameters that have got new storage."""
        for place in self.places:
            if place.has_moved():
                place.now.copy_(place.value)

    def show(self, tensors: Mapping[Tensor, Tensor]) -> None:
        """Lets each parameter stand for another tensor of its shape; its own memory is left alone.

        One that is shared out cannot, and is overwritten.
        """
        for place in self.places:
            if is_shared_out(place.p):
                self._overwritten[place.p] = place.value.clone()
                place.value.copy_(tensors[place.p])
            else:
                place.p.data = tensors[place.p]

    def show_means(self, shown: Mapping[Tensor, Tensor]) -> None:
        """Lets the parameters stand for their own memory again; those that were moved meanwhile get a copy of it."""
        for place in self.places:
            if is_shared_out(place.p):
                place.value.copy_(self._overwritten.get(place.p, place.value))  # unless show was interrupted before
                if place.has_moved():
                    place.now.copy_(place.value)
            elif place.p.data_ptr() in (shown[place.p].data_ptr(), place.value.data_ptr()):
                place.p.data = place.value
            else:
                place.p.copy_(place.value)
        self._overwritten.clear()


def _cut(p: Tensor, room: int) -> list[slice | None]:
    """Parts of at most ``room`` numbers of all of a parameter; one that is not dense stays whole."""
    size = p.numel()
    if not is_shared_out(p) and (size <= room or not is_dense(p)):
        return [None]
    return [slice(start, min(start + room, size)) for start in range(0, max(size, 1), room)]


def _add(share: _Share, p: Tensor, part: slice | None, size: int) -> None:
    """Adds what is here of a part of a parameter."""
    if not is_shared_out(p) or part is None:
        share.pieces.append(Piece(p, part))
        share.stretches.append(slice(share.size, share.size + size))
    else:
        here = stretch(p)
        start, stop = max(part.start, here.start), min(part.stop, here.stop)
        if start < stop:
            share.pieces.append(Piece(p, slice(start - here.start, stop - here.start)))
            share.stretches.append(slice(share.size + start - part.start, share.size + stop - part.start))
    share.size += size
