"""What a memory says of the inputs of the past: its exemplars, in as many copies as it takes to give them variety.

An exemplar z stands for w_z examples. D copies of it, each for w_z / D, are

    x_z + e,  e ~ N(0, W)       where there is a spread W (``bayesdual/memory/spread.py``): what is quadratic in inputs,
                                as curvature is, has the mean over them that it had over the examples
    x_z, rolled by -1, 0 or 1   pixels on each axis, where exemplars are images as they were: the network has learned
                                those by heart, and is surer of them than of the examples that they stand for
    x_z                         elsewhere, once

The noise is neither rounded to grey levels nor clamped to their range: an image's dark border would lose half of its
variance, and the curvature of weights there with it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayesdual.memory.memory import Memory
from bayesdual.posterior import StandIns
from bayesdual.stream import normalise, standardise

STAND_INS = 1600  # at least about as many, whatever the memory's size
COPIES = 4  # at least, of each exemplar
MOST = 4000  # of more exemplars, some stand for all


def stand_ins(
    memory: Memory, mean: tuple[float, ...], std: tuple[float, ...], generator: torch.Generator
) -> StandIns | None:
    """Inputs that stand for all examples that a memory has seen, as networks take them; None where it is empty.

    Args:
        memory: The memory.
        mean: Per-channel mean of the inputs, on the scale 0..1; empty when they are used as they are.
        std: Their standard deviation, alike.
        generator: Source of randomness, on the CPU.
    """
    z = memory.exemplars
    if z is None:
        return None
    images = z.x.dim() == 4
    if len(z) > MOST:
        z = memory.draw(MOST, generator)
        z = replace(z, weights=z.weights * (memory.examples_seen / MOST))
    copies = min(max(COPIES, -(-STAND_INS // len(z))), -(-MOST // len(z))) if memory.spread or images else 1
    x = torch.cat([z.x] * copies)
    if memory.spread:
        levels = memory.spread.around(x.float(), memory.examples_seen, 1.0, generator)
        x = _of_type(levels, z.x.dtype, mean, std)
    elif images:
        x = normalise(rolled(x, generator), mean, std)
    else:
        x = normalise(x, mean, std)
    return StandIns(x, z.tasks.repeat(copies), z.weights.repeat(copies) / copies)


def rolled(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each rolled by -1, 0 or 1 pixels on each axis, at random."""
    steps = torch.randint(-1, 2, (len(x), 2), generator=generator).to(x.device)
    rows, columns = ((torch.arange(size, device=x.device) - step[:, None]) % size
                     for size, step in zip(x.shape[2:], steps.T, strict=True))  # fmt: skip
    images = torch.arange(len(x), device=x.device)[:, None, None]
    return x.movedim(1, -1)[images, rows[:, :, None], columns[:, None]].movedim(-1, 1)


def _of_type(levels: Tensor, dtype: torch.dtype, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """What the network takes of float inputs around exemplars of a type."""
    if dtype != torch.uint8:
        return levels.to(dtype)
    return standardise(levels, mean, std) if mean else levels.round_().clamp_(0, 255).to(dtype)
