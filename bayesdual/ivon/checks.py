"""What IVON refuses, and warns of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def warn_of_sum(operation: Any) -> None:
    """Warns if the last operation of a loss, a node of autograd's graph, is a sum over several numbers."""
    size = math.prod(getattr(operation, "_saved_self_sym_sizes", ()))
    is_sum = type(operation).__name__.startswith("SumBackward") and size > 1
    if is_sum or getattr(operation, "_saved_reduction", None) == 2:
        warnings.warn(
            "the loss looks like a sum over the batch: IVON needs the mean, or gradient and Hessian are as many times "
            "too large as there are examples in it.",
            stacklevel=2,
        )


def gradient_length(grads: dict[Tensor, Tensor]) -> float:
    """The length of the gradients of all parameters together; not finite if one of their numbers is not."""
    tensors = list(grads.values())
    length = float(torch.nn.utils.get_total_norm(tensors))
    if math.isfinite(length):
        return length
    # squares overflow before numbers do: once more, in units of the largest
    largest = max(float(g.abs().max()) for g in tensors if g.numel())
    return largest * float(torch.nn.utils.get_total_norm([g / largest for g in tensors]))


def first_nonfinite(grads: dict[Tensor, Tensor]) -> Tensor | None:
    """The first parameter whose gradient is infinite or not a number."""
    return next((p for p, g in grads.items() if not bool(g.isfinite().all())), None)


def name_of(p: Tensor | None, groups: Sequence[Mapping[str, Any]]) -> str:
    """What to call a parameter of these groups in a message; None is any of them."""
    if p is not None:
        for number, group in enumerate(groups):
            for i, other in enumerate(group["params"]):
                if other is p:
                    name = group["param_names"][i] if "param_names" in group else f"{i} of group {number}"
                    return f"parameter {name}, of shape {tuple(p.shape)},"
    return "a parameter"


def check_group(group: Mapping[str, Any]) -> None:
    """Checks the settings of a parameter group, and that its parameters can be learned.

    Raises:
        ValueError: A setting is out of its range, or a parameter is in half precision or sharded.
    """
    for name, good, what in (
        ("lr", group["lr"] >= 0, "0 or more"),
        ("ess", group["ess"] > 0, "a positive number, usually the number of training examples"),
        ("hess_init", group["hess_init"] > 0, "a positive number"),
        ("weight_decay", group["weight_decay"] >= 0, "0 or more"),
        ("clip_radius", group["clip_radius"] > 0, "a positive number"),
        ("betas", all(0 <= b < 1 for b in group["betas"]), "two numbers in [0, 1)"),
    ):
        if not good:
            raise ValueError(f"IVON's {name} is {group[name]}: give {what}.")
    for p in group["params"]:
        if p.requires_grad and p.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"a parameter is {p.dtype}, which is too coarse for IVON's Hessian: keep the parameters in float32 "
                "and use mixed precision (torch.autocast)."
            )
        if hasattr(p, "device_mesh") or getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False):
            raise ValueError("a parameter is sharded (FSDP or DTensor), which IVON cannot sample: use DDP.")
