"""The factor R of one layer, whose R R^T is its part of the logits' covariance: an equation for each kind of layer.

From a layer's input a, delta[c, b, o] = d f_c / d output_o of example b, and the deviations sigma of its parameters:

    linear       R[b, c, o]    = delta[c, b, o] * sqrt(a^2 (sigma_W^2)^T)[b, o]
    convolution, or a linear layer applied at positions l: sum over positions before squaring
                 R[b, c, o, k] = sigma_W[o, k] * sum_l delta[c, b, o, l] patches(a)[b, l, k]
    norm         R[b, c, o]    = sigma_w[o] * sum_l delta[c, b, o, l] normalised(a)[b, o, l]
    embedding    R[b, c, t, d] = sigma_W[t, d] * sum_{l: token l is t} delta[c, b, d, l]
    every bias   R[b, c, o]    = sigma_b[o] * sum_l delta[c, b, o, l]

All rules have one form. `factors(delta, input, weight, bias, options)` yields pieces (rows, R), R of shape
(rows, G, K, N): the covariances of the examples `rows` add up over pieces, over G and over N.

    delta         (K, B, ...) gradients at the layer's output, of the K classes that went backward
    input         (B, ...)    what the layer was given
    weight, bias              their variances; None if fixed or absent
    options                   the function's other arguments, and `normalised`, the function without weight and bias
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 2**18  # numbers of R that a layer forms at a time: a megabyte or two, which stay in the cache
Pieces = Iterator[tuple[slice, Tensor]]
EVERY = slice(None)


# ---- The rules ---------------------------------------------------------------------------------------------


def _linear(delta: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, options: dict) -> Pieces:
    delta = delta.flatten(2, -2).mT if delta.dim() > 3 else delta.unsqueeze(-1)  # (K, B, O, L)
    input = input.reshape(len(input), 1, -1, input.shape[-1]).mT  # (B, 1, I, L)
    weight = None if weight is None else weight.unsqueeze(0)
    yield from _shared_pieces(delta.unsqueeze(2), lambda rows: input[rows], weight, bias)


def _convolution(delta: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, options: dict) -> Pieces:
    groups, kernel = options.get("groups", 1), options["weight"].shape[2:]
    delta = delta.flatten(3).unflatten(2, (groups, -1))  # (K, B, G, O / G, L)
    weight = None if weight is None else weight.flatten(1).unflatten(0, (groups, -1))  # (G, O / G, I)
    yield from _shared_pieces(delta, lambda rows: unfolded(input[rows], kernel, groups, options), weight, bias)


def _channel_norm(delta: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, options: dict) -> Pieces:
    delta = delta.unsqueeze(-1).flatten(3)  # (K, B, O, L)
    if weight is not None:
        normalised = options["normalised"](input).unsqueeze(-1).flatten(2)
        yield from _affine_pieces((delta * normalised).sum(-1), weight)
    yield from _affine_pieces(delta.sum(-1), bias)


def _trailing_norm(delta: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, options: dict) -> Pieces:
    own = 1 if isinstance(options["normalized_shape"], int) else len(options["normalized_shape"])
    delta = delta.flatten(-own).unsqueeze(2).flatten(2, -2)  # (K, B, L, O)
    if weight is not None:
        normalised = options["normalised"](input).flatten(-own).unsqueeze(1).flatten(1, -2)
        yield from _affine_pieces((delta * normalised).sum(2), weight.flatten())
    yield from _affine_pieces(delta.sum(2), None if bias is None else bias.flatten())


def _embedding(delta: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, options: dict) -> Pieces:
    if weight is None:
        return
    tokens, delta = input.reshape(len(input), -1), delta.reshape(*delta.shape[:2], -1, delta.shape[-1])
    same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
    counted = ~same.tril(-1).any(-1)  # each token once, at its first position
    if options.get("padding_idx") is not None:
        counted &= tokens != options["padding_idx"] % len(weight)  # autograd, too, holds that row fixed
    deviation = weight[tokens].sqrt() * counted.unsqueeze(-1)
    yield EVERY, _rows_first(((same.to(delta.dtype) @ delta) * deviation).flatten(2))


# ---- Which function has which ------------------------------------------------------------------------------


class Rule(NamedTuple):
    """How a function of `torch.nn.functional` is explained."""

    factors: Callable[..., Pieces]
    arguments: str  # names of the function's arguments, in order
    batch_leads: bool = True  # the batch can only be dimension 0


CONVOLUTION = Rule(_convolution, "input weight bias stride padding dilation groups")
RULES: dict[Callable, Rule] = {
    F.linear: Rule(_linear, "input weight bias", batch_leads=False),
    F.conv1d: CONVOLUTION,
    F.conv2d: CONVOLUTION,
    F.conv3d: CONVOLUTION,
    F.batch_norm: Rule(_channel_norm, "input running_mean running_var weight bias training momentum eps"),
    F.group_norm: Rule(_channel_norm, "input num_groups weight bias eps"),
    F.layer_norm: Rule(_trailing_norm, "input normalized_shape weight bias eps", batch_leads=False),
    F.rms_norm: Rule(_trailing_norm, "input normalized_shape weight eps", batch_leads=False),
    F.embedding: Rule(
        _embedding,
        "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse",
        batch_leads=False,
    ),
}


# ---- What rules share --------------------------------------------------------------------------------------


def _shared_pieces(
    delta: Tensor, patches: Callable[[slice], Tensor], weight: Tensor | None, bias: Tensor | None
) -> Pieces:
    """A weight and a bias applied at L positions.

    Args:
        delta: (K, B, G, O, L).
        patches: what the weight meets in some examples, (rows, G, I, L).
        weight: its variance, (G, O, I).
        bias: its variance, (G * O,).
    """
    classes, batch, groups, outputs, positions = delta.shape
    if positions == 1:  # nothing to sum before squaring, so the sum over I comes first and is shared by classes
        variance = delta.new_zeros(()) if bias is None else bias.view(groups, 1, outputs)
        if weight is not None:
            squares = patches(EVERY).squeeze(-1).square().transpose(0, 1)
            variance = torch.baddbmm(variance, squares, weight.mT)  # (G, B, O)
        yield EVERY, (delta.squeeze(-1) * variance.sqrt().transpose(0, 1)).permute(1, 2, 0, 3)
        return
    if bias is not None:
        yield from _affine_pieces(delta.sum(-1).flatten(2), bias)
    if weight is None:
        return
    delta, deviation = delta.permute(1, 2, 0, 3, 4), weight.sqrt()
    numbers = classes * weight[:, 0].numel()
    for rows in slices(batch, PIECE // (numbers * outputs)):
        met = patches(rows).mT
        for part in slices(outputs, PIECE // (len(met) * numbers)):
            factor = delta[rows, :, :, part].flatten(2, 3) @ met  # (rows, G, K * part, I)
            factor = factor.unflatten(2, (classes, -1)).mul_(deviation[:, part].unsqueeze(1))
            yield rows, factor.flatten(3)


def _affine_pieces(gradient: Tensor, variance: Tensor | None) -> Pieces:
    """A bias or a norm's weight: gradient (K, B, O), variance (O,)."""
    if variance is not None:
        yield EVERY, _rows_first(gradient * variance.sqrt())


def _rows_first(factor: Tensor) -> Tensor:
    """(K, B, N) -> (B, 1, K, N)."""
    return factor.movedim(0, 1).unsqueeze(1)


def unfolded(input: Tensor, kernel: Sequence[int], groups: int, options: dict) -> Tensor:
    """What a convolution of any dimension sees at each position: (B, channels, ...) -> (B, G, I, L)."""
    axes = len(kernel)
    stride, dilation = _per_axis(options.get("stride", 1), axes), _per_axis(options.get("dilation", 1), axes)
    padding = options.get("padding", 0)
    if padding == "same":  # torch puts the odd zero at the end
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        sides = [(t // 2, t - t // 2) for t in total]
    else:
        sides = [(p, p) for p in _per_axis(0 if padding == "valid" else padding, axes)]
    input = F.pad(input, [zeros for side in reversed(sides) for zeros in side])
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        input = input.unfold(axis, d * (k - 1) + 1, s)[..., ::d]  # (B, channels, positions..., kernel...)
    positions = list(range(3, 3 + axes))
    input = input.unflatten(1, (groups, -1)).movedim(positions, [-a - 1 for a in reversed(range(axes))])
    return input.flatten(-axes).flatten(2, -2)


def _per_axis(value: int | Sequence[int], axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def slices(length: int, step: int) -> Iterator[slice]:
    """Even slices of at most `step` (at least one) that cover range(length)."""
    count = -(-length // max(1, step))
    step = -(-length // count)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
