"""What function variance refuses, and the conversions that it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from bayesdual.rounding import at_least_single


class HasVariance(Protocol):
    """Anything with variances by parameter name, such as `bayesdual.posterior.Posterior`."""

    @property
    def variance(self) -> Mapping[str, Tensor]: ...


# ---- What is refused ---------------------------------------------------------------------------------------


TRAIN_MODE = "{} is in train mode, where logits are not a function of their example alone: call model.eval()."
BATCH_STATISTICS = "{} has no running statistics, so that logits depend on the whole batch: give it some to track."


def refuse_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
    """Takes the arguments of `F.dropout`, and refuses those that drop something."""
    if training and p > 0:
        raise ValueError(TRAIN_MODE.format("a dropout"))


def refuse_train_mode(model: nn.Module) -> None:
    """Refuses a model with a batch norm or dropout that makes logits more than a function of their example."""
    for name, module in model.named_modules():
        batch_statistics = isinstance(module, _BatchNorm) and module.running_mean is None
        tracking = isinstance(module, _NormBase) and module.training and module.track_running_stats
        dropping = isinstance(module, _DropoutNd) and module.training and module.p > 0
        if batch_statistics or tracking or dropping:
            what = f"{name or 'the model'} ({type(module).__name__})"
            raise ValueError((BATCH_STATISTICS if batch_statistics else TRAIN_MODE).format(what))


def checked_variances(parameters: Mapping[str, Tensor], posterior: HasVariance) -> dict[str, Tensor]:
    """The variances by name, on the device of their parameter and in at least single precision."""
    variances = {}
    for name, variance in posterior.variance.items():
        if name not in parameters:
            raise ValueError(f"the posterior has a variance for {name!r}, but the model has no such parameter.")
        p = parameters[name]
        if variance.shape != p.shape:
            raise ValueError(
                f"the variance of {name!r} has shape {tuple(variance.shape)}, but the parameter has {tuple(p.shape)}."
            )
        low, high = (bound.item() for bound in variance.aminmax()) if variance.numel() else (0, 0)
        if not (low >= 0 and high < math.inf):  # NaN is in both, and fails
            raise ValueError(f"the variance of {name!r} has an entry that is negative or not finite.")
        variances[name] = variance.detach().to(p.device, at_least_single(p.dtype))
    if not variances:
        raise ValueError("the posterior holds no variance: give one to at least one parameter of the model.")
    return variances


def checked_logits(logits: Any, examples: int) -> Tensor:
    """What a model gave for a batch, seen to be logits (B, C)."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != examples:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits of shape ({examples}, C) for {examples} examples, got {got}.")
    return logits


# ---- Modes and conversions ---------------------------------------------------------------------------------


@contextmanager
def differentiable(parameters: Mapping[str, Tensor], variances: Mapping[str, Tensor], device: str) -> Iterator[None]:
    """Exactly the parameters with a variance require a gradient inside; all is as it was afterwards."""
    before = {name: p.requires_grad for name, p in parameters.items()}
    try:
        for name, p in parameters.items():
            p.requires_grad_(name in variances)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for name, required in before.items():
            parameters[name].requires_grad_(required)


def not_inference(inputs: Tensor) -> Tensor:
    """The inputs, or a copy where they were made in inference mode, which autograd cannot keep."""
    return inputs.clone() if inputs.is_inference() else inputs


def is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
