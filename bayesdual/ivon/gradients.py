"""The gradients of parameters, who has changed them since, and their sums over samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from bayesdual.ivon import foreach
from bayesdual.ivon.distributed import Pairs, average
from bayesdual.ivon.shards import local

Gradients = dict[Tensor, Tensor]


def gradients_of(params: Iterable[Tensor]) -> Gradients:
    """The gradients of those parameters that have one and are not frozen."""
    return {p: p.grad for p in params if p.requires_grad and p.grad is not None}


class Mark:
    """One number of the first gradient, made NaN for a while: only zeroing takes that away, not adding or clipping."""

    def __init__(self, grads: Gradients) -> None:
        self.gradient = next((g for g in grads.values() if local(g).numel() and not g.is_sparse), None)
        if self.gradient is not None:
            here = local(self.gradient).data  # as nobody's backward pass needs to know
            self._number = here.as_strided((1,), (1,))
            self._was = self._number.item()
            self._number.fill_(math.nan)

    def remove(self) -> None:
        """Puts the number back."""
        if self.gradient is not None:
            self._number.fill_(self._was)
            self.gradient = None

    def is_zeroed(self) -> bool:
        """Whether the gradient was zeroed, so that there is nothing to put back."""
        if self.gradient is None or bool(self._number.isnan()):
            return False
        self.gradient = None
        return True


def holders(tensor: Tensor) -> int:
    """How many hold the memory of a tensor; more than a new one's if it is not the only one."""
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


def version(grads: Gradients) -> int:
    """How often the first gradient was changed in place."""
    return next((local(g)._version for g in grads.values()), 0)


class Sums:
    """Sums of g and of the product over the samples that are finished.

    Args:
        squared: The product is g^2 ("gradsq"), and not eps g ("price").
    """

    def __init__(self, squared: bool) -> None:
        self.squared = squared
        self.count = 0  # of samples
        self._pairs: Pairs = {}

    def add(self, grads: Gradients, eps: Mapping[Tensor, Tensor]) -> None:
        """Adds a sample: the gradient of each parameter that has one, and the eps of all."""
        for p, g in grads.items():
            own = torch.empty_like(eps[p]).copy_(local(g))  # in the type of the state
            product = own * (own if self.squared else eps[p])
            if p in self._pairs:
                foreach.add_(self._pairs[p], [own, product])
            else:
                self._pairs[p] = (own, product)
        self.count += 1

    def gradients(self) -> list[Tensor]:
        """The sums of g."""
        return [g for g, _ in self._pairs.values()]

    def means(self, like: Mapping[Tensor, Tensor], spread: bool) -> Pairs:
        """Turns the sums into means, if ``spread`` over the processes too; ``like`` has a tensor of all parameters."""
        for pair in self._pairs.values():
            foreach.div_(pair, self.count)
        return average(like, self._pairs) if spread else self._pairs
