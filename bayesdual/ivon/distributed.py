"""Averages of an optimizer's gradients over the processes of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

Pairs = dict[Tensor, tuple[Tensor, Tensor]]


def rank_and_world_size() -> tuple[int, int]:
    """Which process this is, and how many there are; (0, 1) where there is no process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def same_on_all(number: int, device: torch.device) -> int:
    """The number that the first process has."""
    common = torch.tensor(number, device=device)
    dist.broadcast(common, 0)
    return int(common)


def average(like: Mapping[Tensor, Tensor], pairs: Pairs) -> Pairs:
    """Averages two tensors of each parameter over the processes, in one reduction.

    Args:
        like: A tensor of the shape of each parameter, in the same order in each process.
        pairs: This process's tensors, shaped as their parameter; a parameter that is missing has zeros.

    Returns:
        The averages of all parameters that any process has tensors of.
    """
    full = {p: pairs.get(p) or (torch.zeros_like(t), torch.zeros_like(t)) for p, t in like.items()}
    count = torch.tensor([float(p in pairs) for p in like], device=next(iter(like)).device)
    tensors = [t for pair in full.values() for t in pair]
    flat = torch.cat([count, *(t.flatten() for t in tensors)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat[len(like) :], [t.numel() for t in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
    return {p: full[p] for p, n in zip(like, flat[: len(like)].tolist(), strict=True) if n}


def refuse_averaged(grads: Sequence[Tensor], device: torch.device) -> None:
    """Checks that nobody has averaged the gradients before.

    Raises:
        RuntimeError: All processes have the same gradients.
    """
    mine = torch.zeros((), dtype=torch.float64, device=device)
    for g in grads:
        mine += g.double().abs().sum().to(device)
    everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, mine)
    if float(mine) and len({float(total) for total in everyones}) == 1:
        raise RuntimeError(
            'noise is "independent", but all processes have the same gradients: keep DistributedDataParallel from '
            "averaging them, by ddp_model.register_comm_hook(None, noop_hook) of "
            "torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks."
        )
