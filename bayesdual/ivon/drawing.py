"""A sample in the memory of a block's parameters, and the mean back in its place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesdual.ivon import foreach
from bayesdual.ivon.blocks import Block, Tensors
from bayesdual.ivon.equations import perturb_
from bayesdual.ivon.noise import standard_normal_


def draw_(block: Block, key: str) -> None:
    """Keeps the mean, and puts the sample of a key into the parameters."""
    foreach.copy_(block.means, block.params)
    block.sampled = True
    _perturb_(block, block.params, key)


def draw_into_(block: Block, key: str, thetas: Mapping[Tensor, Tensor]) -> None:
    """Puts the sample of a key into other tensors, given by parameter."""
    parts = block.parts_of(thetas)
    foreach.copy_(parts, block.params)
    _perturb_(block, parts, key)


def _perturb_(block: Block, means: Tensors, key: str) -> None:
    deviation, deviations = block.spare("first")
    torch.add(block.hess, block.group["weight_decay"], out=deviation).rsqrt_()
    normal, normals = block.spare("second")
    standard_normal_(normal, f"{key} {block.number}")
    perturb_(means, normals, deviations, block.group["ess"])


def restore_(block: Block) -> None:
    """Puts the mean back, and keeps eps, as the parameters have rounded it."""
    if block.sampled:
        theta, thetas = block.spare("first")
        foreach.copy_(thetas, block.params)
        foreach.copy_(block.params, block.means)
        block.sampled = False  # if a call is interrupted before this, the next still finds the mean
        torch.sub(theta, block.buffer, out=block.buffer)
