"""What IVON keeps of its parameters: what it says of the posterior, and what was saved of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bayesdual.ivon.blocks import Groups, States
from bayesdual.ivon.checks import name_of
from bayesdual.ivon.shards import local, part_of, shared_out_as
from bayesdual.rounding import HALVES, at_least_single, unrounded
from bayesdual.tensors import fits, grow_into_


def precision_of(p: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """The posterior precision N (h + d) of a parameter; what is new of it has its group's ``hess_init``."""
    like = torch.empty_like(local(p.detach()), dtype=at_least_single(p.dtype))
    hess = grow_into_(like, part_of(p, state.get("hess")), group["hess_init"])
    return shared_out_as(p, group["ess"] * (hess + group["weight_decay"]))


def mean_of(p: Tensor, state: Mapping[str, Any]) -> Tensor:
    """The posterior mean of a parameter, while this holds it."""
    return shared_out_as(p, unrounded(local(p.detach()), part_of(p, state.get("mean"))))


def noise_of(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """The seed of the noise, and how much of it was drawn.

    Raises:
        ValueError: The state is not IVON's.
    """
    noise = saved.get("noise", saved["param_groups"][0])  # which had a place of its own until version 0.2
    if "draws" not in noise:
        raise ValueError(
            "the state is not that of bayesdual's IVON: it does not say which noise was drawn; start with a new "
            "optimizer, or with bayesdual.ivon.from_ivon_opt."
        )
    return noise


def check_fits(saved: Mapping[str, Any], groups: Groups) -> None:
    """Checks that saved tensors are no larger than the parameters.

    Raises:
        ValueError: One is.
    """
    for p, state in _pairs(saved, groups):
        hess = state.get("hess")
        if hess is not None and not fits(hess.shape, p):
            raise ValueError(
                f"the state of {name_of(p, groups)} has shape {tuple(hess.shape)}: load one that was saved with the "
                "same model, or with a head of fewer classes."
            )


def copied(states: Mapping[Any, Mapping[str, Any]]) -> dict[Any, dict[str, Any]]:
    """A copy that shares no memory, of tensors that processes share out, too (``deepcopy`` cannot)."""
    return {
        i: {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in state.items()}
        for i, state in states.items()
    }


def restore_type(states: States, saved: Mapping[str, Any], groups: Groups) -> None:
    """Loads the tensors of parameters of 16 bits once more: PyTorch has rounded them to the type of the parameter."""
    for p, state in _pairs(saved, groups):
        if p.dtype in HALVES:
            tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
            states[p] |= {n: t.to(p.device, at_least_single(p.dtype), copy=True) for n, t in tensors.items()}


def warn_of_others(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Warns of settings that all groups share, and that were saved with other values."""
    for name, value in ours.items():
        if saved.get(name, value) != value:
            warnings.warn(f"IVON was saved with {name}={saved[name]!r}, and goes on with {value!r}.", stacklevel=3)


def _pairs(saved: Mapping[str, Any], groups: Groups) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
    """Each parameter and what was saved of it; PyTorch complains of their number."""
    numbers = [i for group in saved["param_groups"] for i in group["params"]]
    for i, p in zip(numbers, (p for group in groups for p in group["params"]), strict=False):
        yield p, saved["state"].get(i, {})
