"""What IVON refuses, and warns of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bayesdual.ivon.shards import local, over_shards, shard_dim
from bayesdual.rounding import HALVES

WORDS_OF_IVON_OPT = {
    "beta1": "betas=(beta1, beta2)",
    "beta2": "betas=(beta1, beta2)",
    "sync": 'noise="independent" for sync=True, and nothing for sync=False',
}

ADDED_TO_ANOTHER = (
    "the gradients of one sample were added to those of another: call optimizer.zero_grad() in each "
    "sampled_params(train=True), or accumulate over batches inside one."
)
IN_A_HOST = (
    "In Lightning's automatic optimization the callback bayesdual.ivon.IVONCallback() sees to it; in manual "
    "optimization put the forward pass and manual_backward into optimizer.sampled_params(train=True). Elsewhere "
    "(Hugging Face's Trainer, accelerate) bayesdual.ivon.sample_in_forward(model, optimizer) does."
)
ADDED_BY_CLOSURE = (
    "there are gradients that were not computed in the sample of step(closure): the closure added to older ones, and "
    f"has to call optimizer.zero_grad(), or it has none to compute. {IN_A_HOST}"
)
OUTSIDE = (
    "the gradients were not computed in a sample: compute them in sampled_params(train=True), or in step(closure). "
    f"{IN_A_HOST}"
)
ZEROED_TOO_EARLY = (
    "the gradients of a sample were zeroed in place before they were counted: zero them inside the next "
    "sampled_params(train=True), or by optimizer.zero_grad()."
)


def refuse_words(given: Mapping[str, Any]) -> None:
    """Refuses keyword arguments that IVON does not have.

    Raises:
        TypeError: There are any; it says what those of ivon-opt are called here.
    """
    for name in given:
        if name in WORDS_OF_IVON_OPT:
            raise TypeError(f"IVON has no {name}, which is ivon-opt's word: give {WORDS_OF_IVON_OPT[name]}.")
        raise TypeError(f"IVON has no argument {name!r}.")


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
    return over_shards(_length, grads)


def factors(grads: dict[Tensor, Tensor], length: float, max_norm: float, max_rms: float) -> dict[Tensor, float]:
    """By what each gradient is multiplied, for none to have a root mean square above ``max_rms``, nor all ``max_norm``.

    Args:
        grads: The gradient of each parameter, all finite.
        length: That of all of them together.
        max_norm: The greatest length of all of them together.
        max_rms: The greatest root mean square of each.
    """
    each = dict.fromkeys(grads, 1.0)
    if math.isfinite(max_rms):
        lengths = {p: gradient_length({p: g}) for p, g in grads.items()}
        each = {p: min(1.0, max_rms * math.sqrt(p.numel()) / (x or 1.0)) for p, x in lengths.items()}
        length = math.hypot(*(each[p] * x for p, x in lengths.items()))
    common = min(1.0, max_norm / (length or 1.0))
    return {p: common * factor for p, factor in each.items()}


def _length(grads: Sequence[Tensor]) -> float:
    tensors = [_of_same_length(g) for g in grads]
    length = float(torch.nn.utils.get_total_norm(tensors))
    if math.isfinite(length):
        return length
    # squares overflow before numbers do: once more, in units of the largest
    largest = max(float(g.abs().max()) for g in tensors if g.numel())
    return largest * float(torch.nn.utils.get_total_norm([g / largest for g in tensors]))


def _of_same_length(g: Tensor) -> Tensor:
    """``g``, or if it is of 16 bits its length: squares of them overflow, and sums of squares are too coarse."""
    return torch.linalg.vector_norm(g, dtype=torch.float32) if g.dtype in HALVES else g


def first_nonfinite(grads: dict[Tensor, Tensor]) -> Tensor | None:
    """The first parameter whose gradient is infinite or not a number."""
    return next((p for p, g in grads.items() if not bool(local(g).isfinite().all())), None)


def name_of(p: Tensor | None, groups: Sequence[Mapping[str, Any]]) -> str:
    """What to call a parameter of these groups in a message; None is any of them."""
    if p is not None:
        for number, group in enumerate(groups):
            for i, other in enumerate(group["params"]):
                if other is p:
                    name = group["param_names"][i] if "param_names" in group else f"{i} of group {number}"
                    return f"parameter {name}, of shape {tuple(p.shape)},"
    return "a parameter"


GOOD: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (lambda lr: 0 <= lr < math.inf, "0 or more"),
    "ess": (lambda ess: 0 < ess < math.inf, "a positive number, usually the number of training examples"),
    "hess_init": (lambda h: 0 < h < math.inf, "a positive number"),
    "weight_decay": (lambda d: 0 <= d < math.inf, "0 or more"),
    "clip_radius": (lambda xi: xi > 0, "a positive number"),
    "betas": (lambda b: len(b) == 2 and 0 <= b[0] < 1 and 0 <= b[1] < 1, "two numbers in [0, 1)"),
}


def check_common(mc_samples: int, max_norm: float, max_rms: float, hess_approx: str, noise: str) -> None:
    """Checks the settings that all groups share.

    Raises:
        ValueError: One is out of its range.
    """
    if mc_samples < 1:
        raise ValueError(f"mc_samples is {mc_samples}: give at least 1.")
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm}: give a positive number.")
    if not max_rms > 0:
        raise ValueError(f"max_rms is {max_rms}: give a positive number.")
    if hess_approx not in ("price", "gradsq"):
        raise ValueError(f'hess_approx is {hess_approx!r}: give "price" or "gradsq".')
    if noise not in ("shared", "independent"):
        raise ValueError(f'noise is {noise!r}: give "shared" or "independent".')


def check_settings(group: Mapping[str, Any]) -> None:
    """Checks the settings of a parameter group.

    Raises:
        ValueError: One is out of its range.
    """
    for name, (is_good, what) in GOOD.items():
        try:
            good = is_good(group[name])
        except TypeError:  # no number at all
            good = False
        if not good:
            raise ValueError(f"IVON's {name} is {group[name]!r}: give {what}.")


def check_params(params: Iterable[Any], independent: bool) -> None:
    """Checks that parameters can be learned.

    Args:
        params: The parameters.
        independent: Each process has its own noise.

    Raises:
        ValueError: One is of another type than float16, bfloat16, float32 and float64, or sharded.
    """
    for p in params:
        if p.requires_grad and p.is_complex():
            raise ValueError(
                "a parameter is complex: learn torch.view_as_real of it, as IVON's posterior is of real numbers."
            )
        if p.requires_grad and p.dtype not in (*HALVES, torch.float32, torch.float64):
            raise ValueError(
                f"a parameter is {p.dtype}, which is too coarse to hold a sample: keep it in bfloat16 or float32."
            )
        if getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False):
            raise ValueError(
                "a parameter is sharded by FullyShardedDataParallel, whose flat parameters IVON cannot sample: use "
                "torch.distributed.fsdp.fully_shard or DistributedDataParallel."
            )
        if (cut := shard_dim(p)) is not None and independent:
            raise ValueError(
                f'noise is "independent", but a parameter is sharded over dimension {cut} of {p.device_mesh}, where '
                'gradients are averaged: give noise="shared".'
            )
