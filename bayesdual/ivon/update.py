"""A step of one block, by IVON's equations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdual.ivon import foreach
from bayesdual.ivon.blocks import Block, States
from bayesdual.ivon.compiled import fused
from bayesdual.ivon.drawing import adopt_
from bayesdual.ivon.equations import update_mean_, update_state_


@dataclass(frozen=True)
class How:
    """How the step of all blocks is made.

    Attributes:
        squared: The product is g^2 ("gradsq"), and not eps g ("price").
        multiplied: There were several samples or processes: the buffers hold the mean of the product, and not eps.
        fused: The arithmetic is compiled.
    """

    squared: bool
    multiplied: bool
    fused: bool


def update_(block: Block, states: States, grads: Mapping[Tensor, Tensor], how: How) -> None:
    """Steps the pieces of a block whose parameters have a gradient.

    Args:
        block: The block.
        states: The optimizer's, for the number of the step.
        grads: The mean of g of each parameter.
        how: How.
    """
    adopt_(block)
    group = block.group
    d, b1 = group["weight_decay"], group["betas"][0]
    scale = group["hess_init"] + d if group["rescale_lr"] else 1.0
    for part in block.having(grads):
        (g, parts), (precision, precisions), e = part.spare("first"), part.spare("second"), part.buffer
        foreach.copy_(parts, part.parts_of(grads))
        if not how.multiplied:
            torch.mul(g, g if how.squared else e, out=e)
        if how.squared:
            e.div_(torch.add(part.hess, d, out=precision))
        update = fused(update_state_) if how.fused else update_state_
        update(part.hess, part.momentum, g, e, precision, betas=group["betas"], ess=group["ess"], d=d)
        steps = [states[p]["step"] for p in part.owners]
        debias = [1 - b1**t if group["debias"] else 1.0 for t in steps]
        a, xi = float(group["lr"]) * scale, group["clip_radius"]
        update_mean_(part.means, part.momenta, precisions, a=a, debias=debias, d=d, xi=xi)
        if part.mean is not None:
            foreach.copy_(part.params, part.means)
