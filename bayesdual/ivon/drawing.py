"""A sample in the memory of a block's parameters, and the mean back in its place.

Between the two, the buffer keeps what the parameters cannot: the mean, or where that has memory of its own, as that of
parameters of 16 bits has, eps. There eps is what was drawn, and not what rounding has made of it: rounding adds to
theta, but over means that fall anywhere between two numbers nothing that goes along with eps, so that eps g still says
what the curvature is, even where the spacing of numbers is wider than the posterior; rounded, eps would be too long.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayesdual.ivon import foreach
from bayesdual.ivon.blocks import Block, Tensors
from bayesdual.ivon.equations import perturb_
from bayesdual.ivon.noise import standard_normal_
from bayesdual.ivon.scratch import spare
from bayesdual.rounding import unrounded


def draw_(block: Block, key: str) -> None:
    """Puts the sample of a key into the parameters, and keeps the mean."""
    if block.mean is None:
        foreach.copy_(block.kept, block.params)
        block.sampled = True
        _perturb_(block, block.params, key)
    else:
        block.sampled = True
        theta = _perturbed(block, block.mean, key, block.params)
        torch.sub(theta, block.mean, out=block.buffer)


def draw_into_(block: Block, key: str, thetas: Mapping[Tensor, Tensor]) -> None:
    """Puts the sample of a key into other tensors, given by parameter."""
    parts = block.parts_of(thetas)
    if block.mean is None:
        foreach.copy_(parts, block.params)
        _perturb_(block, parts, key)
    else:
        _perturbed(block, block.mean, key, parts)


def _perturbed(block: Block, mean: Tensor, key: str, rounded: Tensors) -> Tensor:
    """The sample of a key, flat and in float32; it is also put into tensors of 16 bits."""
    theta, thetas = block.spare("third")
    theta.copy_(mean)
    _perturb_(block, thetas, key)
    foreach.copy_(rounded, thetas)
    return theta


def _perturb_(block: Block, means: Tensors, key: str) -> None:
    deviation, deviations = block.spare("first")
    torch.add(block.hess, block.group["weight_decay"], out=deviation).rsqrt_()
    normal, normals = block.spare("second")
    _normal_(block, normal, f"{key} {block.number}")
    perturb_(means, normals, deviations, block.group["ess"])


def _normal_(block: Block, out: Tensor, key: str) -> None:
    """Noise of a key; where processes share out the block, the part here of what a single process has."""
    if block.everywhere is None:
        standard_normal_(out, key)
        return
    size, stretches = block.everywhere
    everyones = standard_normal_(spare("noise", size, out.dtype, out.device), key)
    torch.cat([everyones[stretch] for stretch in stretches], out=out)


def restore_(block: Block) -> None:
    """Puts the mean back, and keeps eps; where the parameters are not of 16 bits, as they have rounded it."""
    if not block.sampled:
        return
    if block.mean is None:
        theta, thetas = block.spare("first")
        foreach.copy_(thetas, block.params)
        foreach.copy_(block.params, block.kept)
        block.sampled = False  # if a call is interrupted before this, the next still finds the mean
        torch.sub(theta, block.buffer, out=block.buffer)
    else:
        foreach.copy_(block.params, block.means)
        block.sampled = False


def adopt_(block: Block) -> None:
    """Takes what somebody has written to parameters of 16 bits for their mean."""
    if block.mean is not None:
        for p, mean in zip(block.params, block.means, strict=True):
            mean.copy_(unrounded(p, mean))
