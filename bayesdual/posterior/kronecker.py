"""The curvature of a loss, measured layer by layer: Kronecker factors of the GGN, summed over examples.

For a linear layer with weights W (bias as its last column), inputs a (with a 1 appended) and outputs W a, the GGN of
``ggn.py``, sum_i w_i J_i^T Lambda_i J_i, is approximated by

    H = G (x) A,    A = sum_i w_i sum_l a_il a_il^T,    G = mean of J_il^T Lambda_i J_il,    J_il = df_i / d(W a_il)

so that H applied to a change X of W is G X A, and the change costs 1/2 tr(X^T G X A). A layer that is applied at
several positions l, as a convolution is at each patch, has the sum over them in A, and their mean in G. A is exact over
all examples; G is drawn, from the pairs of an example and a label that the diagonal is drawn from.

At a temperature T > 1, Lambda is that of softmax(f / T): the curvature along logits that the network is sure of is then
not lost, which is nearly all of it once the network fits its data.

Sources: Martens & Grosse, ICML 2015 (linear layers); Grosse & Martens, ICML 2016 (convolutions); Eschenhagen et al.,
NeurIPS 2023 (layers with positions: the "expand" setting).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.files import refusing_other_content
from bayesdual.posterior.backward import MEMORY
from bayesdual.posterior.checks import differentiable, not_inference, refuse_train_mode
from bayesdual.posterior.ggn import draw_pairs, squared_gradients
from bayesdual.posterior.layer_rules import CONVOLUTION, RULES, slices, unfolded
from bayesdual.posterior.recording import Layer, Plan, explain, plan_of, record
from bayesdual.tensor_files import read_tensors, write_tensors

FORMAT = "bayesdual-curvature-1"


@dataclass(frozen=True, eq=False)
class KroneckerFactors:
    """The curvature G (x) A of a layer.

    Attributes:
        inputs: A, shape (D, D); D is the number of a weight's entries for one output, and one more with a bias.
        outputs: G, shape (O, O).
        bias: Name of the bias that is the last column of the weights; None without one.
    """

    inputs: Tensor
    outputs: Tensor
    bias: str | None = None

    def __matmul__(self, change: Tensor) -> Tensor:
        """G X A, shape (O, D), for a change X of the weights, shape (O, D)."""
        return self.outputs @ change @ self.inputs

    def solve(self, right: Tensor, prior_precision: float) -> Tensor:
        """X with G X A + delta X = right, shape (O, D); delta is positive."""
        (a, inputs), (g, outputs) = (torch.linalg.eigh(side.double()) for side in (self.inputs, self.outputs))
        values = torch.outer(g.clamp_min(0), a.clamp_min(0)) + prior_precision
        return (outputs @ ((outputs.T @ right.double() @ inputs) / values) @ inputs.T).to(right)

    def diagonal(self) -> Tensor:
        """The diagonal, shape (O, D)."""
        return torch.outer(self.outputs.diagonal(), self.inputs.diagonal())


Curvature = Tensor | KroneckerFactors
"""Of a parameter: a diagonal, of its shape, or the factors of it and of the bias of its layer."""


def kronecker_curvature(
    model: nn.Module,
    inputs: Tensor,
    weights: Tensor,
    *,
    pairs: int = 1000,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    memory_limit: int = MEMORY,
) -> dict[str, Curvature]:
    """Kronecker factors for the layers that have them, and the diagonal for all other parameters.

    Factors are known of linear layers and convolutions without groups whose weight is used once in a forward pass.

    Args:
        model: module with `model(inputs)` -> logits (B, C), in eval mode if it has batch norm or dropout.
        inputs: examples (N, ...).
        weights: w, how many examples each stands for, shape (N,).
        pairs: number of draws of an example and a label, each of which costs a backward pass.
        temperature: T.
        generator: source of randomness, on the CPU.
        memory_limit: bytes to aim at.

    Returns:
        By name of the weight, of the parameters that require a gradient and are used. A bias that is in the factors
        of its layer has no entry of its own.

    Raises:
        ValueError: a norm layer or dropout is in train mode, the logits are not (B, C), there is no example, or the
            temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: give a positive number.")
    if len(inputs) == 0:
        raise ValueError("inputs holds no example: give at least one.")
    refuse_train_mode(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    biases: dict[str, str | None] = {}
    a: dict[str, Tensor] = {}
    g: dict[str, Tensor] = {}
    logits = []
    with differentiable(dict(model.named_parameters()), parameters, inputs.device.type):
        inputs = not_inference(inputs)
        plan = plan_of(model, model.parameters(), inputs[:1])
        for rows, f, layers in _forwards(model, inputs, plan, parameters, memory_limit):
            logits.append(f.detach())
            for name, bias, layer in layers:
                met = _met(layer, bias is not None, plan.dtype)  # (B, L, D)
                weighted = met * weights[rows, None, None].to(met)
                a[name] = a.get(name, 0) + weighted.flatten(0, 1).T @ met.flatten(0, 1)
                biases[name] = bias
        drawn, directions = draw_pairs(torch.cat(logits) / temperature, weights, pairs, generator)
        for rows, f, layers in _forwards(model, inputs[drawn], plan, parameters, memory_limit) if biases else ():
            gradients = torch.autograd.grad(f, [layer.target for _, _, layer in layers], directions[rows].to(f))
            for (name, _, layer), gradient in zip(layers, gradients, strict=True):
                delta = _at_positions(layer, gradient.to(plan.dtype))  # (B, L, O)
                g[name] = g.get(name, 0) + delta.flatten(0, 1).T @ delta.flatten(0, 1) / delta.shape[1]
    total = weights.sum()
    result: dict[str, Curvature] = {
        name: KroneckerFactors(a[name], g[name] / total.to(g[name]), biases[name]) for name in g
    }
    covered = {*result, *(bias for name in g if (bias := biases[name]))}
    if covered < parameters.keys():
        diagonal = squared_gradients(model, inputs[drawn], directions, memory_limit=memory_limit)
        result |= {name: value for name, value in diagonal.items() if name not in covered}
    return result


def save_curvature(path: str | Path, curvature: Mapping[str, Curvature]) -> None:
    """Writes a curvature to one safetensors file.

    Args:
        path: The file.
        curvature: Diagonals and Kronecker factors by parameter name.
    """
    tensors, biases = {}, {}
    for name, h in curvature.items():
        if isinstance(h, Tensor):
            tensors[f"diagonal/{name}"] = h
        else:
            tensors |= {f"inputs/{name}": h.inputs, f"outputs/{name}": h.outputs}
            biases[name] = h.bias
    write_tensors(path, tensors, {"format": FORMAT, "biases": json.dumps(biases)})


def load_curvature(path: str | Path) -> dict[str, Curvature]:
    """Reads what :func:`save_curvature` wrote; executes nothing from it.

    Args:
        path: The file.

    Raises:
        ValueError: The file is not one of a curvature, or is damaged.
    """
    with refusing_other_content(path, "curvature"):
        return _loaded(path)


def _loaded(path: str | Path) -> dict[str, Curvature]:
    try:
        tensors, header = read_tensors(path, "curvature")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}).") from None
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} is not a file of a curvature: its header does not say {FORMAT}.")
    curvature: dict[str, Curvature] = {
        name.removeprefix("diagonal/"): value for name, value in tensors.items() if name.startswith("diagonal/")
    }
    for name, bias in json.loads(header["biases"]).items():
        curvature[name] = KroneckerFactors(tensors[f"inputs/{name}"], tensors[f"outputs/{name}"], bias)
    return curvature


def _forwards(
    model: nn.Module, inputs: Tensor, plan: Plan, parameters: Mapping[str, Tensor], memory_limit: int
) -> Iterator[tuple[slice, Tensor, list[tuple[str, str | None, Layer]]]]:
    """Forward passes with gradients: rows, logits, and name, bias and call of each layer that has factors."""
    names = {id(p): name for name, p in parameters.items()}
    two = torch.cat([inputs[:1], inputs[:1]])
    dims = plan.batch_dims(record(model, two)[1], 2)
    for rows in slices(len(inputs), memory_limit // (plan.forward + plan.backward + plan.scratch)):
        logits, calls = record(model, inputs[rows])
        layers, _ = explain(logits, calls, dims, parameters, parameters)
        found = []
        for layer in layers:
            given = layer.call.arguments
            name = names.get(id(given["weight"]))
            plain = layer.call.function is F.linear or (
                RULES[layer.call.function] is CONVOLUTION and given.get("groups", 1) == 1
            )
            if plain and name is not None and layer.weight is not None:
                bias = None if layer.bias is None else names.get(id(given["bias"]))
                found.append((name, bias, layer))
        yield rows, logits, found


def _met(layer: Layer, bias: bool, dtype: torch.dtype) -> Tensor:
    """What the weights of a layer meet at each position, shape (B, L, D), with a 1 at the end if it has a bias."""
    given = dict(layer.call.arguments)
    a = given.pop("input").detach().movedim(layer.dim, 0).to(dtype)
    if layer.call.function is F.linear:
        a = a.reshape(len(a), -1, a.shape[-1])
    else:
        a = unfolded(a, given["weight"].shape[2:], 1, given).squeeze(1).mT
    return F.pad(a, (0, 1), value=1.0) if bias else a


def _at_positions(layer: Layer, gradient: Tensor) -> Tensor:
    """A gradient at the outputs of a layer, shape (B, L, O)."""
    gradient = gradient.movedim(layer.dim, 0)
    if layer.call.function is F.linear:
        return gradient.reshape(len(gradient), -1, gradient.shape[-1])
    return gradient.flatten(2).mT
