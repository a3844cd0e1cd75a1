"""What ivon-opt 0.1.3 saved, as a start for ours.

Its state dict has the Hessian and the momentum of each group in one flat tensor, in the order of the parameters; it
lacks how many steps were made, by which the momentum is debiased.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayesdual.ivon.optimizer import IVON

SAME = ("lr", "ess", "hess_init", "weight_decay", "clip_radius")


def from_ivon_opt(theirs: Mapping[str, Any], optimizer: IVON, step: int) -> dict[str, Any]:
    """Converts a state of ivon-opt: ``optimizer.load_state_dict(from_ivon_opt(theirs, optimizer, step))``.

    Args:
        theirs: The ``state_dict()`` of an ``ivon.IVON`` that has made a step.
        optimizer: Ours, over parameters of the same shapes in the same groups and order; it is left alone.
        step: How many steps the other has made (its ``current_step``, which it does not save).

    Returns:
        A state dict with the Hessians, momenta and settings of groups of the other; the noise is that of ``optimizer``.

    Raises:
        ValueError: The state is not ivon-opt's, or is of parameters of other sizes.
    """
    ours = optimizer.state_dict()
    states: dict[int, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    pairs = list(zip(theirs["param_groups"], ours["param_groups"], optimizer.param_groups, strict=False))
    if len(pairs) < max(len(theirs["param_groups"]), len(ours["param_groups"])):
        raise ValueError(f"ivon-opt had {len(theirs['param_groups'])} groups: give IVON the same.")
    for number, (old, saved, group) in enumerate(pairs):
        if not {"hess", "momentum", "beta1", "beta2", *SAME} <= set(old):
            raise ValueError("the state is not ivon-opt's: its groups have no hess, momentum, beta1 and beta2.")
        sizes = [p.numel() for p in group["params"]]
        if len(old["hess"]) != sum(sizes):
            raise ValueError(f"group {number} of ivon-opt had {len(old['hess'])} weights, and ours has {sum(sizes)}.")
        flat = zip(
            saved["params"], group["params"], old["hess"].split(sizes), old["momentum"].split(sizes), strict=True
        )
        states |= {i: {"step": step, "hess": h.view(p.shape), "momentum": u.view(p.shape)} for i, p, h, u in flat}
        groups.append(saved | {name: old[name] for name in SAME} | {"betas": (old["beta1"], old["beta2"])})
    return ours | {"state": states, "param_groups": groups}
