"""Parameters of which each process holds a part: DTensors, as ``fully_shard`` (FSDP2) makes them.

The optimizer works on the part that is here; what it keeps of it are DTensors too, so that a distributed checkpoint
knows where they belong. A part is a stretch of the parameter in the order of memory, as it is cut along its first
dimension.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import torch
import torch.distributed as dist
from torch import Tensor


def is_shared_out(tensor: Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Any) -> Tensor:
    """What of a tensor is here."""
    if not is_shared_out(tensor):
        return tensor
    with torch.no_grad():
        return tensor.to_local()


def shared_out_as(p: Any, part: Tensor) -> Tensor:
    """A tensor shared out as the parameter is, whose part here is the memory of ``part``."""
    if not is_shared_out(p):
        return part
    from torch.distributed.tensor import DTensor

    stride = torch.empty(p.shape, device="meta").stride()
    return DTensor.from_local(part, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=stride)


def shard_dim(p: Any) -> int | None:
    """Along which dimension of the mesh a parameter is cut; None if all of it is here.

    Raises:
        ValueError: It is cut in another way than along its first dimension, once.
    """
    if not is_shared_out(p):
        return None
    cuts = [i for i, placement in enumerate(p.placements) if not placement.is_replicate()]
    if len(cuts) > 1 or any(not p.placements[i].is_shard(0) for i in cuts):
        raise ValueError(
            f"a parameter of shape {tuple(p.shape)} is sharded as {tuple(p.placements)}: IVON takes parameters that "
            "are cut once, along their first dimension (fully_shard without tensor parallelism)."
        )
    return cuts[0] if cuts else None


def stretch(p: Any) -> slice:
    """Where the part here stands in the order of memory of all of the parameter."""
    dim = shard_dim(p)
    if dim is None:
        return slice(0, p.numel())
    rows = -(-p.shape[0] // p.device_mesh.size(dim))
    row = p.numel() // max(p.shape[0], 1)
    start = min(rows * p.device_mesh.get_local_rank(dim), p.shape[0]) * row
    return slice(start, start + local(p).numel())


def part_of(p: Tensor, tensor: Tensor | None) -> Tensor | None:
    """Of a tensor that belongs to a parameter, shared out as that or not, what belongs to the part here."""
    if tensor is None or not is_shared_out(p) or is_shared_out(tensor):
        return None if tensor is None else local(tensor)
    return tensor.flatten()[stretch(p)].view(local(p).shape) if tensor.shape == p.shape else tensor


def over_shards(length: Callable[[Sequence[Tensor]], float], grads: dict[Tensor, Tensor]) -> float:
    """The length of gradients together, of all parts of those that are shared out.

    Args:
        length: That of tensors that are here.
        grads: The gradient of each parameter.
    """
    groups: dict[Any, list[Tensor]] = {None: []}
    for p, g in grads.items():
        dim = shard_dim(p)
        groups.setdefault(None if dim is None else p.device_mesh.get_group(dim), []).append(local(g))  # type: ignore[attr-defined]
    lengths = [length(groups.pop(None))]
    for group, parts in groups.items():
        square = torch.tensor(length(parts) ** 2, dtype=torch.float64, device=parts[0].device)
        dist.all_reduce(square, group=group)
        lengths.append(math.sqrt(float(square)))
    return math.hypot(*lengths)


def modules_that_gather() -> list[ref[Any]]:
    """The FSDP modules of this process: parameters do not know theirs, and those of others do no harm."""
    from torch.distributed.fsdp import FSDPModule

    return [ref(o) for o in gc.get_objects() if issubclass(type(o), FSDPModule)]
