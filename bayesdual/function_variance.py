"""Function variance: how uncertain each logit is under a diagonal Gaussian posterior, exactly and fast.

With f(x) the C logits of a network, J = df/dtheta (C x P) for one example, and posterior covariance
Sigma = diag(sigma^2), the linearised network has the covariance

    V = J Sigma J^T = R R^T,    R = J diag(sigma),    v = diag V,    v_c = sum_p sigma_p^2 J_cp^2

A batch of J takes B * C * P numbers. Instead, R R^T is summed layer by layer, from a layer's input a and
delta[c, b, o] = d f_c / d output_o, which one batched backward of the C unit vectors gives:

    linear       R[b, c, o]    = delta[c, b, o] * sqrt(a^2 (sigma_W^2)^T)[b, o]
    convolution, or a linear layer applied at positions l: sum over positions before squaring
                 R[b, c, o, k] = sigma_W[o, k] * sum_l delta[c, b, o, l] patches(a)[b, l, k]
    norm         R[b, c, o]    = sigma_w[o] * sum_l delta[c, b, o, l] normalised(a)[b, o, l]
    embedding    R[b, c, t, d] = sigma_W[t, d] * sum_{l: token l is t} delta[c, b, d, l]
    every bias   R[b, c, o]    = sigma_b[o] * sum_l delta[c, b, o, l]

A layer is recognised by the function it calls with a parameter (`F.linear`, `F.conv2d`, ...), not by its
class, so custom modules built of these are fast too. What no rule explains (tied weights, a layer called twice, a
parameter used in any other way) is noticed by counting the edges of the autograd graph that end in each
parameter, and its part of R comes from plain autograd, one example at a time: slow, but as exact.

Sources: Khan & Rue, "The Bayesian learning rule", JMLR 2023; Nickl, Xu et al., "The memory perturbation
equation", NeurIPS 2023 (v as a sensitivity); Immer et al., "Improving predictions of Bayesian neural nets via
local linearization", AISTATS 2021 (the linearised network).
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

__all__ = ["directional_variance", "function_covariance", "function_variance", "function_variance_mc"]

_MEMORY = 2**28  # bytes: with more, ResNet-18 is slower
_PIECE = 2**18  # numbers of R that a layer forms at a time: a megabyte or two, which stay in the cache


class HasVariance(Protocol):
    """Anything with variances by parameter name, such as `bayesdual.posterior.Posterior`."""

    @property
    def variance(self) -> Mapping[str, Tensor]: ...


# ---- What is computed --------------------------------------------------------------------------------------


def function_variance(
    model: nn.Module, inputs: Tensor, posterior: HasVariance, *, memory_limit: int = _MEMORY
) -> Tensor:
    """Exact variance of every logit of the linearised network, v = diag(J Sigma J^T).

    J is taken at the weights that the model has, so these should be the posterior's mean. The logits of an
    example must depend on that example alone, and the model must keep the examples of a batch in order.

    Args:
        model: module with `model(inputs)` -> logits (B, C), in eval mode if it has batch norm or dropout.
        inputs: batch (B, ...) of whatever dtype the model takes.
        posterior: `posterior.variance[name]` is the variance of the parameter of that name in
            `model.named_parameters()`, of the same shape. Parameters without an entry are fixed.
        memory_limit: bytes to aim at for activations, their gradients and temporaries. Examples, and then
            classes, are taken in chunks that fit, down to one example and one class.

    Returns:
        Variances (B, C), in units of logits squared.

    Raises:
        ValueError: a norm layer or dropout is in train mode, the variances do not match the model or are not
            variances, the logits are not (B, C), or they depend on no parameter that has a variance.
    """
    return _accumulate(model, inputs, posterior, memory_limit, _squared_norms)


def function_covariance(
    model: nn.Module, inputs: Tensor, posterior: HasVariance, *, memory_limit: int = _MEMORY
) -> Tensor:
    """Exact covariance of the logits of each example in the linearised network, V = J Sigma J^T.

    Arguments and errors are those of `function_variance`, but classes are not taken in chunks: the least
    memory is that of one example with its C backward passes.

    Returns:
        Covariances (B, C, C), in units of logits squared.
    """
    return _accumulate(model, inputs, posterior, memory_limit, _gram)


def directional_variance(
    model: nn.Module,
    inputs: Tensor,
    posterior: HasVariance,
    directions: Tensor,
    *,
    memory_limit: int = _MEMORY,
) -> Tensor:
    """Exact variance of one combination of logits per example, e^T J Sigma J^T e, from a single backward.

    Other arguments and errors are those of `function_variance`.

    Args:
        directions: (B, C), the vector e of each example, for instance its residual p - y.

    Returns:
        Variances (B,), in units of logits squared times those of the directions squared.
    """
    return _accumulate(model, inputs, posterior, memory_limit, _squared_norms, directions)[:, 0]


@torch.no_grad()
def function_variance_mc(
    model: nn.Module,
    inputs: Tensor,
    posterior: HasVariance,
    *,
    samples: int = 64,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Monte-Carlo variance of every logit: the sample variance of f(theta + sigma * noise).

    This is the variance of the network itself; `function_variance` is its first order in Sigma. One sample of
    the weights is held at a time. The relative standard error is sqrt(2 / (samples - 1)).

    Args:
        model, inputs, posterior: as in `function_variance`.
        samples: number of forwards, at least 2.
        generator: source of the noise, on the device of the parameters.

    Returns:
        Variances (B, C), in units of logits squared.

    Raises:
        ValueError: as in `function_variance`, or for fewer than 2 samples.
    """
    if samples < 2:
        raise ValueError(f"samples is {samples}, but a sample variance needs at least 2.")
    _refuse_train_mode(model)
    parameters = dict(model.named_parameters())
    variances = _checked_variances(parameters, posterior)
    mean = squares = torch.zeros(())
    for count in range(1, samples + 1):  # Welford's recursion: stable, and no stack of logits
        weights = {}
        for name, variance in variances.items():
            p = parameters[name]
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
            weights[name] = p + noise * variance.sqrt().to(p.dtype)
        logits = _checked_logits(functional_call(model, weights, (inputs,)), len(inputs))
        change = logits - mean
        mean = mean + change / count
        squares = squares + change * (logits - mean)
    return squares / (samples - 1)


# ---- Rules: the factor R of one layer ----------------------------------------------------------------------
#
# factors(delta, input, weight, bias, options) yields pieces (rows, R), R of shape (rows, G, K, N): covariances
# of the examples `rows` add up over pieces, over G and over N. K counts the classes that went backward.
#
#   delta         (K, B, ...) gradients at the layer's output
#   input         (B, ...)    what the layer was given
#   weight, bias              their variances; None if fixed or absent
#   options                   the function's other arguments, and `normalised`, the function without weight, bias

Pieces = Iterator[tuple[slice, Tensor]]
_ALL = slice(None)


def _linear(delta: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, options: dict) -> Pieces:
    delta = delta.flatten(2, -2).mT if delta.dim() > 3 else delta.unsqueeze(-1)  # (K, B, O, L)
    input = input.reshape(len(input), 1, -1, input.shape[-1]).mT  # (B, 1, I, L)
    weight = None if weight is None else weight.unsqueeze(0)
    yield from _shared_pieces(delta.unsqueeze(2), lambda rows: input[rows], weight, bias)


def _convolution(delta: Tensor, input: Tensor, weight: Tensor | None, bias: Tensor | None, options: dict) -> Pieces:
    groups, kernel = options.get("groups", 1), options["weight"].shape[2:]
    delta = delta.flatten(3).unflatten(2, (groups, -1))  # (K, B, G, O / G, L)
    weight = None if weight is None else weight.flatten(1).unflatten(0, (groups, -1))  # (G, O / G, I)
    yield from _shared_pieces(delta, lambda rows: _patches(input[rows], kernel, groups, options), weight, bias)


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
    yield _ALL, _rows_first(((same.to(delta.dtype) @ delta) * deviation).flatten(2))


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
            squares = patches(_ALL).squeeze(-1).square().transpose(0, 1)
            variance = torch.baddbmm(variance, squares, weight.mT)  # (G, B, O)
        yield _ALL, (delta.squeeze(-1) * variance.sqrt().transpose(0, 1)).permute(1, 2, 0, 3)
        return
    if bias is not None:
        yield from _affine_pieces(delta.sum(-1).flatten(2), bias)
    if weight is None:
        return
    delta, deviation = delta.permute(1, 2, 0, 3, 4), weight.sqrt()
    numbers = classes * weight[:, 0].numel()
    for rows in _slices(batch, _PIECE // (numbers * outputs)):
        met = patches(rows).mT
        for part in _slices(outputs, _PIECE // (len(met) * numbers)):
            factor = delta[rows, :, :, part].flatten(2, 3) @ met  # (rows, G, K * part, I)
            factor = factor.unflatten(2, (classes, -1)).mul_(deviation[:, part].unsqueeze(1))
            yield rows, factor.flatten(3)


def _affine_pieces(gradient: Tensor, variance: Tensor | None) -> Pieces:
    """A bias or a norm's weight: gradient (K, B, O), variance (O,)."""
    if variance is not None:
        yield _ALL, _rows_first(gradient * variance.sqrt())


def _rows_first(factor: Tensor) -> Tensor:
    """(K, B, N) -> (B, 1, K, N)."""
    return factor.movedim(0, 1).unsqueeze(1)


def _patches(input: Tensor, kernel: Sequence[int], groups: int, options: dict) -> Tensor:
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


class _Rule(NamedTuple):
    factors: Callable[..., Pieces]
    arguments: str  # names of the function's arguments, in order
    batch_leads: bool = True  # the batch can only be dimension 0


_CONVOLUTION = _Rule(_convolution, "input weight bias stride padding dilation groups")
_RULES: dict[Callable, _Rule] = {
    F.linear: _Rule(_linear, "input weight bias", batch_leads=False),
    F.conv1d: _CONVOLUTION,
    F.conv2d: _CONVOLUTION,
    F.conv3d: _CONVOLUTION,
    F.batch_norm: _Rule(_channel_norm, "input running_mean running_var weight bias training momentum eps"),
    F.group_norm: _Rule(_channel_norm, "input num_groups weight bias eps"),
    F.layer_norm: _Rule(_trailing_norm, "input normalized_shape weight bias eps", batch_leads=False),
    F.rms_norm: _Rule(_trailing_norm, "input normalized_shape weight eps", batch_leads=False),
    F.embedding: _Rule(
        _embedding,
        "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse",
        batch_leads=False,
    ),
}


# ---- Recording a forward -----------------------------------------------------------------------------------

_ATTENTION = inspect.signature(F.multi_head_attention_forward)
_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}


@dataclass
class _Use:
    """One call of a function that has a rule."""

    function: Callable
    arguments: dict[str, Any]
    edge: GradientEdge  # of the output; it stays right when the output is changed in place later
    shape: torch.Size  # of the output


class _Recorder(TorchFunctionMode):
    """Notes every differentiable call of a function that has a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: list[_Use] = []

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None):
        if function is F.multi_head_attention_forward:
            return self._attention(*args, **(kwargs or {}))
        return self._noted(function, *args, **(kwargs or {}))

    def _noted(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        if function in _DROPOUTS:
            _refuse_dropout(*args, **kwargs)
        if function not in _RULES:
            return function(*args, **kwargs)
        arguments = {**dict(zip(_RULES[function].arguments.split(), args, strict=False)), **kwargs}
        if function is F.batch_norm and arguments.get("training"):
            raise ValueError(_TRAIN_MODE.format("a batch norm"))
        output = function(*args, **kwargs)
        if output.requires_grad and not (arguments.get("max_norm") or arguments.get("scale_grad_by_freq")):
            self.uses.append(_Use(function, arguments, get_gradient_edge(output), output.shape))
        return output

    def _attention(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """torch's attention, with its four projections taken out of it to where they can be noted."""
        given = _ATTENTION.bind(*args, **kwargs).arguments
        _refuse_dropout(given["query"], given["dropout_p"], given.get("training", True))
        width, weight, bias = given["embed_dim_to_check"], given["in_proj_weight"], given["in_proj_bias"]
        eye = torch.eye(width, dtype=given["query"].dtype, device=given["query"].device)
        for i, (role, own) in enumerate({"query": "q", "key": "k", "value": "v"}.items()):
            third = slice(i * width, (i + 1) * width)
            separate = given.get("use_separate_proj_weight", False)
            w = given[f"{own}_proj_weight"] if separate else weight[third]
            given[role] = self._noted(F.linear, given[role], w, None if bias is None else bias[third])
        given.update({f"{own}_proj_weight": eye for own in "qkv"})  # multiplying by one does not round
        given.update(use_separate_proj_weight=True, in_proj_weight=None, in_proj_bias=None)
        last = given["out_proj_weight"], given["out_proj_bias"]
        mixed, attention = F.multi_head_attention_forward(**{**given, "out_proj_weight": eye, "out_proj_bias": None})
        return self._noted(F.linear, mixed, *last), attention


def _record(model: nn.Module, inputs: Tensor) -> tuple[Tensor, list[_Use]]:
    with _Recorder() as recorder:
        logits = model(inputs)
    logits = _checked_logits(logits, len(inputs))
    if not logits.requires_grad:
        raise ValueError(
            "the logits depend on no parameter that has a variance: give one to a parameter that is used, "
            "and keep no_grad and detach out of the model's forward."
        )
    return logits, recorder.uses


@dataclass
class _Plan:
    """What the forward of a single example tells about the model."""

    shapes: list[tuple[torch.Size, torch.Size]]  # of input and output, for each use
    classes: int
    dtype: torch.dtype  # of the result, at least single precision
    device: torch.device
    forward: int  # bytes per example that the graph saves
    backward: int  # bytes per example and class
    scratch: int  # bytes for the temporaries of the largest layer

    def batch_dims(self, uses: list[_Use], examples: int) -> list[tuple[Callable, int | None]]:
        """Function and batch dimension of each use, from a forward of at least two examples.

        It is the dimension that is 1 for one example and their number for several, in input and output
        alike. None where there is no such dimension: the rules cannot tell the examples apart.
        """
        dims: list[int | None] = []
        for use, one in zip(uses, self.shapes, strict=False):
            grown = [
                _grown(a, b, examples) for a, b in zip(one, (use.arguments["input"].shape, use.shape), strict=True)
            ]
            dims.append(grown[0] if grown[0] == grown[1] else None)
            if dims[-1] and _RULES[use.function].batch_leads:
                dims[-1] = None
        same = len(uses) == len(self.shapes)
        return [(use.function, dim if same else None) for use, dim in zip(uses, dims, strict=False)]


def _grown(one: torch.Size, many: torch.Size, examples: int) -> int | None:
    """The only dimension in which two shapes differ, if it grew from 1 to the number of examples."""
    differ = [dim for dim, sizes in enumerate(zip(one, many, strict=False)) if sizes[0] != sizes[1]]
    alone = len(one) == len(many) and len(differ) == 1 and (one[differ[0]], many[differ[0]]) == (1, examples)
    return differ[0] if alone else None


def _plan(model: nn.Module, parameters: Iterable[Tensor], example: Tensor) -> _Plan:
    own = {p.untyped_storage().data_ptr() for p in parameters}
    saved: dict[int, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            saved[place] = max(_bytes(tensor), saved.get(place, 0))
        return tensor

    with saved_tensors_hooks(weigh, lambda tensor: tensor):
        logits, uses = _record(model, example)
    outputs = [use.shape.numel() for use in uses]
    patches = [
        use.shape[2:].numel() * use.arguments["weight"][0].numel() * use.arguments.get("groups", 1)
        for use in uses
        if _RULES[use.function] is _CONVOLUTION
    ]
    dtype = _at_least_single(logits.dtype)
    return _Plan(
        shapes=[(use.arguments["input"].shape, use.shape) for use in uses],
        classes=logits.shape[1],
        dtype=dtype,
        device=logits.device,
        forward=sum(saved.values()),
        backward=dtype.itemsize * (sum(outputs) + 4 * max(outputs, default=1)),  # kept; passing through
        scratch=dtype.itemsize * (2 * max(patches, default=0) + 4 * _PIECE),
    )


# ---- Which parameters the rules explain --------------------------------------------------------------------


def _located(tensor: Any, names: dict[int, str]) -> tuple[str, slice] | None:
    """Name of the parameter that a tensor is, or is a contiguous part of, and where in it (flat)."""
    if not isinstance(tensor, Tensor):
        return None
    if id(tensor) in names:
        return names[id(tensor)], slice(0, tensor.numel())
    base = tensor._base
    if base is not None and id(base) in names and base.is_contiguous() and tensor.is_contiguous():
        start = tensor.storage_offset() - base.storage_offset()
        return names[id(base)], slice(start, start + tensor.numel())
    return None


def _graph_of(logits: Tensor) -> tuple[Counter[int], set]:
    """How many edges of the graph end in each parameter (by id), and all nodes of the graph."""
    ends: Counter[int] = Counter()
    seen: set[Any] = {logits.grad_fn}
    stack: list[Any] = [logits.grad_fn]
    while stack:
        for node, _ in stack.pop().next_functions:
            if hasattr(node, "variable"):
                ends[id(node.variable)] += 1
            elif node is not None and node not in seen:
                seen.add(node)
                stack.append(node)
    return ends, seen


@dataclass
class _Parameter:
    """A parameter that no rule accounts for: `pieces` takes the gradients (K, ...) of one example."""

    target: Tensor
    variance: Tensor

    def pieces(self, gradient: Tensor) -> Pieces:
        yield _ALL, (gradient * self.variance.sqrt()).reshape(1, 1, len(gradient), -1)


@dataclass
class _Layer:
    """A use with its batch dimension, and the variances that it, and no other use, accounts for."""

    use: _Use
    dim: int
    weight: Tensor | None
    bias: Tensor | None

    @property
    def target(self) -> GradientEdge:
        return self.use.edge

    def pieces(self, delta: Tensor) -> Pieces:
        options = {k: v.to(delta.dtype) if _is_float(v) else v for k, v in self.use.arguments.items()}
        input = options.pop("input").movedim(self.dim, 0)
        bare = {k: v for k, v in options.items() if k not in ("weight", "bias")}
        options["normalised"] = lambda input: self.use.function(input, **bare)
        factors = _RULES[self.use.function].factors
        return factors(delta.movedim(1 + self.dim, 1), input, self.weight, self.bias, options)


def _explain(
    logits: Tensor,
    uses: list[_Use],
    dims: list[tuple[Callable, int | None]],
    parameters: Mapping[str, Tensor],
    variances: Mapping[str, Tensor],
) -> tuple[list[_Layer], list[_Parameter]]:
    """Splits the parameters that have a variance into those that layers account for and the others.

    A parameter is accounted for if each edge of the graph that ends in it comes from a use whose batch
    dimension is known, and no two uses share any of its numbers.
    """
    ends, nodes = _graph_of(logits)
    names = {id(parameters[name]): name for name in variances}
    as_planned = [function for function, _ in dims] == [use.function for use in uses]
    known = [
        (use, dim)
        for use, (_, dim) in zip(uses, dims if as_planned else [], strict=False)
        if use.edge.node in nodes and dim is not None and use.arguments["input"].shape[dim] == len(logits)
    ]
    claims: dict[str, list[slice]] = {name: [] for name in variances}
    for use, _ in known:
        for role in ("weight", "bias"):
            if place := _located(use.arguments.get(role), names):
                claims[place[0]].append(place[1])

    def accounted(name: str) -> bool:
        parts = sorted(claims[name], key=lambda part: part.start)
        apart = all(a.stop <= b.start for a, b in zip(parts, parts[1:], strict=False))
        return apart and len(parts) == ends[id(parameters[name])]

    others = [name for name in variances if not accounted(name)]

    def variance(tensor: Any) -> Tensor | None:
        place = _located(tensor, names)
        if place is None or place[0] in others:
            return None
        return variances[place[0]].reshape(-1)[place[1]].view(tensor.shape)

    layers = [
        _Layer(use, dim, variance(use.arguments.get("weight")), variance(use.arguments.get("bias")))
        for use, dim in known
    ]
    layers = [layer for layer in layers if layer.weight is not None or layer.bias is not None]
    return layers, [_Parameter(parameters[name], variances[name]) for name in others]


# ---- Summing R R^T in chunks -------------------------------------------------------------------------------


def _squared_norms(factor: Tensor) -> Tensor:
    """(B, G, K, N) -> diag of R R^T, (B, K)."""
    return torch.linalg.vector_norm(factor, dim=-1).square_().sum(1)


def _gram(factor: Tensor) -> Tensor:
    """(B, G, K, N) -> R R^T, (B, K, K)."""
    return (factor @ factor.mT).sum(1)


def _accumulate(
    model: nn.Module,
    inputs: Tensor,
    posterior: HasVariance,
    memory_limit: int,
    reduce: Callable[[Tensor], Tensor],
    directions: Tensor | None = None,
) -> Tensor:
    """Sum of reduce(R) over all parameters; R has a row per class, or a single one along the directions."""
    _refuse_train_mode(model)
    parameters = dict(model.named_parameters())
    variances = _checked_variances(parameters, posterior)
    if len(inputs) == 0:
        raise ValueError("inputs holds no example: give a batch of at least one.")
    with _differentiable(parameters, variances, inputs.device.type):
        inputs = inputs.clone() if inputs.is_inference() else inputs
        plan = _plan(model, parameters.values(), inputs[:1])
        if directions is not None and directions.shape != (len(inputs), plan.classes):
            raise ValueError(
                f"directions has shape {tuple(directions.shape)}, but the logits have shape "
                f"{(len(inputs), plan.classes)}."
            )
        height = plan.classes if directions is None else 1
        shape = (len(inputs), height, height) if reduce is _gram else (len(inputs), height)
        total = torch.zeros(shape, dtype=plan.dtype, device=plan.device)

        @torch.no_grad()
        def add(batch: slice, logits: Tensor, sources: Sequence[_Layer | _Parameter], cost: int) -> None:
            """Goes backward from the logits of a batch to all sources; `cost` is in bytes per class."""
            room = memory_limit - plan.scratch - len(logits) * plan.forward
            for part in _slices(height, height if reduce is _gram else room // cost):
                along = _unit_vectors(logits, part) if directions is None else directions[batch].unsqueeze(0)
                gradients = _backward(logits, [source.target for source in sources], along.to(logits))
                for source in reversed(sources):
                    gradient = gradients.pop()  # freed one by one
                    if gradient is not None:
                        for rows, factor in source.pieces(gradient.to(total.dtype)):
                            total[batch][rows, part].add_(reduce(factor))

        dims = None
        cost = plan.forward + height * plan.backward
        for batch in _slices(len(inputs), (memory_limit - plan.scratch) // cost):
            logits, uses = _record(model, inputs[batch])
            if dims is None:
                several = uses if len(logits) > 1 else _record(model, torch.cat([inputs[:1], inputs[:1]]))[1]
                dims = plan.batch_dims(several, max(2, len(logits)))
            layers, others = _explain(logits, uses, dims, parameters, variances)
            if layers:
                add(batch, logits, layers, len(logits) * plan.backward)
            del logits, uses, layers  # and with them the graph
            if others:
                one_class = plan.backward + 3 * sum(_bytes(other.variance) for other in others)
                for i in range(*batch.indices(len(inputs))):
                    one = slice(i, i + 1)
                    add(one, _checked_logits(model(inputs[one]), 1), others, one_class)
    return total


def _slices(length: int, step: int) -> Iterator[slice]:
    """Even slices of at most `step` (at least one) that cover range(length)."""
    count = -(-length // max(1, step))
    step = -(-length // count)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _unit_vectors(logits: Tensor, part: slice) -> Tensor:
    """(K, B, C), the unit vectors of some classes, the same for each example."""
    eye = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[part]
    return eye.unsqueeze(1).expand(-1, len(logits), -1)


def _backward(logits: Tensor, targets: list[Any], along: Tensor) -> list[Tensor | None]:
    """Gradients (K, ...) at tensors or graph edges of K combinations, (K, B, C), of the logits; None is zero."""

    def gradients(cotangents: Tensor, batched: bool) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(
            logits, targets, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )

    if len(along) > 1:
        with warnings.catch_warnings():  # vmap's own loop over an operator is as fast as ours
            warnings.filterwarnings("ignore", "There is a performance drop")
            try:
                return list(gradients(along, True))
            except RuntimeError:  # something in the graph that vmap cannot batch
                pass
    columns = zip(*(gradients(cotangents, False) for cotangents in along), strict=True)
    return [None if column[0] is None else torch.stack(column) for column in columns]


# ---- Checks and conversions --------------------------------------------------------------------------------


_TRAIN_MODE = "{} is in train mode, where logits are not a function of their example alone: call model.eval()."
_BATCH_STATISTICS = "{} has no running statistics, so that logits depend on the whole batch: give it some to track."


def _refuse_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
    if training and p > 0:
        raise ValueError(_TRAIN_MODE.format("a dropout"))


def _refuse_train_mode(model: nn.Module) -> None:
    for name, module in model.named_modules():
        batch_statistics = isinstance(module, _BatchNorm) and module.running_mean is None
        tracking = isinstance(module, _NormBase) and module.training and module.track_running_stats
        dropping = isinstance(module, _DropoutNd) and module.training and module.p > 0
        if batch_statistics or tracking or dropping:
            what = f"{name or 'the model'} ({type(module).__name__})"
            raise ValueError((_BATCH_STATISTICS if batch_statistics else _TRAIN_MODE).format(what))


@contextmanager
def _differentiable(parameters: Mapping[str, Tensor], variances: Mapping[str, Tensor], device: str) -> Iterator[None]:
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


def _checked_variances(parameters: Mapping[str, Tensor], posterior: HasVariance) -> dict[str, Tensor]:
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
        variances[name] = variance.detach().to(p.device, _at_least_single(p.dtype))
    if not variances:
        raise ValueError("the posterior holds no variance: give one to at least one parameter of the model.")
    return variances


def _checked_logits(logits: Any, examples: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != examples:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits of shape ({examples}, C) for {examples} examples, got {got}.")
    return logits


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
