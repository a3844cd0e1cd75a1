"""Parameters with their state and a buffer, in blocks that are worked through one at a time.

A step that goes through all parameters once per operation fetches them from memory each time; in a block they stay in
the cache. What belongs to the parameters stands in one flat tensor of each kind, in their order, and a block is a
stretch of it, so that few calls are made however small the parameters are; these keep their own storage.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, MutableMapping
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor

from bayesdual.ivon.scratch import spare
from bayesdual.ivon.shards import local

Tensors = list[Tensor]
Groups = list[dict[str, Any]]  # an optimizer's
States = MutableMapping[Tensor, dict[str, Any]]


class Piece:
    """A parameter, or a part of one in the order of memory; of one that processes share out, of what is here.

    Args:
        owner: The parameter.
        part: Which part of it; None: all.
    """

    def __init__(self, owner: Tensor, part: slice | None = None) -> None:
        self.owner, self.part = owner, part
        self.value = self.of(local(owner.detach()))
        self.size, self.shape = self.value.numel(), self.value.shape
        self.strides = self.value.stride() if is_dense(self.value) else torch.empty(self.shape, device="meta").stride()

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
        everywhere: Where processes share out the parameters, how many numbers the block has in all of them, and which
            of these the pieces are.
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
        everywhere: tuple[int, list[slice]] | None = None,
    ) -> None:
        self.number, self.group, self.pieces, self.everywhere = number, group, pieces, everywhere
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


def _in_memory_order(dense: Tensor) -> Tensor:
    return dense.as_strided((dense.numel(),), (1,))


def is_dense(tensor: Tensor) -> bool:
    """Whether the numbers fill one stretch of memory, in whatever order (``channels_last`` does)."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
