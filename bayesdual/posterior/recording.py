"""Which layers a forward goes through, and which parameters their rules explain.

A layer is recognised by the function that it calls with a parameter (`F.linear`, `F.conv2d`, ...), not by its class, so
that custom modules built of these have rules too: every call of a function that has one is noted, with its arguments
and the edge of the autograd graph at which its output's gradient arrives. torch's attention is called with its
projections taken out of it, so that they are noted as the linear layers that they are.

A parameter is explained if the calls that were noted are all that happens to it: as many edges of the graph end in it
as calls take it (whole, or a part that no other call takes), and each call keeps the examples of a batch apart in a
dimension that is known. What no rule explains (tied weights, a layer called twice, a parameter used in any other way)
remains a `Parameter`, whose part of R comes from plain autograd, one example at a time: slow, but as exact.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from bayesdual.posterior.checks import TRAIN_MODE, at_least_single, bytes_of, checked_logits, is_float, refuse_dropout
from bayesdual.posterior.layer_rules import CONVOLUTION, EVERY, PIECE, RULES, Pieces

_ATTENTION = inspect.signature(F.multi_head_attention_forward)
_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}


# ---- Recording a forward -----------------------------------------------------------------------------------


@dataclass
class Call:
    """One call of a function that has a rule."""

    function: Callable
    arguments: dict[str, Any]
    edge: GradientEdge  # of the output; it stays right when the output is changed in place later
    shape: torch.Size  # of the output


def record(model: nn.Module, inputs: Tensor) -> tuple[Tensor, list[Call]]:
    """A forward with gradients: its logits (B, C), and the calls that it made of functions with a rule.

    Raises:
        ValueError: the logits are not (B, C), or depend on no parameter that has a variance; dropout or batch
            statistics are on.
    """
    with _Recorder() as recorder:
        logits = model(inputs)
    logits = checked_logits(logits, len(inputs))
    if not logits.requires_grad:
        raise ValueError(
            "the logits depend on no parameter that has a variance: give one to a parameter that is used, "
            "and keep no_grad and detach out of the model's forward."
        )
    return logits, recorder.calls


class _Recorder(TorchFunctionMode):
    """Notes every differentiable call of a function that has a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is F.multi_head_attention_forward:
            return self._attention(*args, **(kwargs or {}))
        return self._noted(function, *args, **(kwargs or {}))

    def _noted(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        if function in _DROPOUTS:
            refuse_dropout(*args, **kwargs)
        if function not in RULES:
            return function(*args, **kwargs)
        arguments = {**dict(zip(RULES[function].arguments.split(), args, strict=False)), **kwargs}
        if function is F.batch_norm and arguments.get("training"):
            raise ValueError(TRAIN_MODE.format("a batch norm"))
        output = function(*args, **kwargs)
        if output.requires_grad and not (arguments.get("max_norm") or arguments.get("scale_grad_by_freq")):
            self.calls.append(Call(function, arguments, get_gradient_edge(output), output.shape))
        return output

    def _attention(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """torch's attention, with its four projections taken out of it to where they can be noted."""
        given = _ATTENTION.bind(*args, **kwargs).arguments
        refuse_dropout(given["query"], given["dropout_p"], given.get("training", True))
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


# ---- What one example tells --------------------------------------------------------------------------------


@dataclass
class Plan:
    """What the forward of a single example tells about the model."""

    shapes: list[tuple[torch.Size, torch.Size]]  # of input and output, for each call
    classes: int
    dtype: torch.dtype  # of the result, at least single precision
    device: torch.device
    forward: int  # bytes per example that the graph saves
    backward: int  # bytes per example and class
    scratch: int  # bytes for the temporaries of the largest layer

    def batch_dims(self, calls: list[Call], examples: int) -> list[tuple[Callable, int | None]]:
        """Function and batch dimension of each call, from a forward of at least two examples.

        It is the dimension that is 1 for one example and their number for several, in input and output
        alike. None where there is no such dimension: the rules cannot tell the examples apart.
        """
        dims: list[int | None] = []
        for call, one in zip(calls, self.shapes, strict=False):
            grown = [
                _grown(a, b, examples) for a, b in zip(one, (call.arguments["input"].shape, call.shape), strict=True)
            ]
            dims.append(grown[0] if grown[0] == grown[1] else None)
            if dims[-1] and RULES[call.function].batch_leads:
                dims[-1] = None
        same = len(calls) == len(self.shapes)
        return [(call.function, dim if same else None) for call, dim in zip(calls, dims, strict=False)]


def plan_of(model: nn.Module, parameters: Iterable[Tensor], example: Tensor) -> Plan:
    """What the forward of one example (1, ...) tells; parameters and buffers themselves take no room in the graph."""
    own = {p.untyped_storage().data_ptr() for p in (*parameters, *model.buffers())}
    saved: dict[int, int] = {}

    def weigh(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            saved[place] = max(bytes_of(tensor), saved.get(place, 0))
        return tensor

    with saved_tensors_hooks(weigh, lambda tensor: tensor):
        logits, calls = record(model, example)
    outputs = [call.shape.numel() for call in calls]
    patches = [
        call.shape[2:].numel() * call.arguments["weight"][0].numel() * call.arguments.get("groups", 1)
        for call in calls
        if RULES[call.function] is CONVOLUTION
    ]
    dtype = at_least_single(logits.dtype)
    return Plan(
        shapes=[(call.arguments["input"].shape, call.shape) for call in calls],
        classes=logits.shape[1],
        dtype=dtype,
        device=logits.device,
        forward=sum(saved.values()),
        backward=dtype.itemsize * (sum(outputs) + 4 * max(outputs, default=1)),  # kept; passing through
        scratch=dtype.itemsize * (2 * max(patches, default=0) + 4 * PIECE),
    )


def _grown(one: torch.Size, many: torch.Size, examples: int) -> int | None:
    """The only dimension in which two shapes differ, if it grew from 1 to the number of examples."""
    differ = [dim for dim, sizes in enumerate(zip(one, many, strict=False)) if sizes[0] != sizes[1]]
    alone = len(one) == len(many) and len(differ) == 1 and (one[differ[0]], many[differ[0]]) == (1, examples)
    return differ[0] if alone else None


# ---- Which parameters the rules explain --------------------------------------------------------------------


@dataclass
class Parameter:
    """A parameter that no rule accounts for: `pieces` takes the gradients (K, ...) of one example."""

    target: Tensor
    variance: Tensor

    def pieces(self, gradient: Tensor) -> Pieces:
        yield EVERY, (gradient * self.variance.sqrt()).reshape(1, 1, len(gradient), -1)


@dataclass
class Layer:
    """A call with its batch dimension, and the variances that it, and no other call, accounts for."""

    call: Call
    dim: int
    weight: Tensor | None
    bias: Tensor | None

    @property
    def target(self) -> GradientEdge:
        return self.call.edge

    def pieces(self, delta: Tensor) -> Pieces:
        options = {k: v.to(delta.dtype) if is_float(v) else v for k, v in self.call.arguments.items()}
        input = options.pop("input").movedim(self.dim, 0)
        bare = {k: v for k, v in options.items() if k not in ("weight", "bias")}
        options["normalised"] = lambda input: self.call.function(input, **bare)
        factors = RULES[self.call.function].factors
        return factors(delta.movedim(1 + self.dim, 1), input, self.weight, self.bias, options)


def explain(
    logits: Tensor,
    calls: list[Call],
    dims: list[tuple[Callable, int | None]],
    parameters: Mapping[str, Tensor],
    variances: Mapping[str, Tensor],
) -> tuple[list[Layer], list[Parameter]]:
    """Splits the parameters that have a variance into those that layers account for and the others.

    A parameter is accounted for if each edge of the graph that ends in it comes from a call whose batch
    dimension is known, and no two calls share any of its numbers.
    """
    ends, nodes = _graph_of(logits)
    names = {id(parameters[name]): name for name in variances}
    as_planned = [function for function, _ in dims] == [call.function for call in calls]
    known = [
        (call, dim)
        for call, (_, dim) in zip(calls, dims if as_planned else [], strict=False)
        if call.edge.node in nodes and dim is not None and call.arguments["input"].shape[dim] == len(logits)
    ]
    claims: dict[str, list[slice]] = {name: [] for name in variances}
    for call, _ in known:
        for role in ("weight", "bias"):
            if place := _located(call.arguments.get(role), names):
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
        Layer(call, dim, variance(call.arguments.get("weight")), variance(call.arguments.get("bias")))
        for call, dim in known
    ]
    layers = [layer for layer in layers if layer.weight is not None or layer.bias is not None]
    return layers, [Parameter(parameters[name], variances[name]) for name in others]


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
