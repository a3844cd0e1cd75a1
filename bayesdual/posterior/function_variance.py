"""Function variance: how uncertain each logit is under a diagonal Gaussian posterior, exactly and fast.

With f(x) the C logits of a network, J = df/dtheta (C x P) for one example, and posterior covariance
Sigma = diag(sigma^2), the linearised network has the covariance

    V = J Sigma J^T = R R^T,    R = J diag(sigma),    v = diag V,    v_c = sum_p sigma_p^2 J_cp^2

A batch of J takes B * C * P numbers. Instead, R R^T is summed layer by layer: one batched backward of the C unit
vectors gives the gradients at each layer's output, and a rule (`layer_rules`) makes R of these and of the layer's
input. Which layer has which rule is seen in a forward (`recording`); what no rule explains comes from plain autograd,
one example at a time: slow, but as exact. Examples and classes are taken in chunks that fit a limit of memory.

Sources: Khan & Rue, "The Bayesian learning rule", JMLR 2023; Nickl, Xu et al., "The memory perturbation
equation", NeurIPS 2023 (v as a sensitivity); Immer et al., "Improving predictions of Bayesian neural nets via
local linearization", AISTATS 2021 (the linearised network).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesdual.posterior.checks import (
    HasVariance,
    bytes_of,
    checked_logits,
    checked_variances,
    differentiable,
    refuse_train_mode,
)
from bayesdual.posterior.layer_rules import slices
from bayesdual.posterior.recording import Layer, Parameter, explain, plan_of, record

_MEMORY = 2**28  # bytes: with more, ResNet-18 is slower


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
    refuse_train_mode(model)
    parameters = dict(model.named_parameters())
    variances = checked_variances(parameters, posterior)
    mean = squares = torch.zeros(())
    for count in range(1, samples + 1):  # Welford's recursion: stable, and no stack of logits
        weights = {}
        for name, variance in variances.items():
            p = parameters[name]
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
            weights[name] = p + noise * variance.sqrt().to(p.dtype)
        logits = checked_logits(functional_call(model, weights, (inputs,)), len(inputs))
        change = logits - mean
        mean = mean + change / count
        squares = squares + change * (logits - mean)
    return squares / (samples - 1)


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
    refuse_train_mode(model)
    parameters = dict(model.named_parameters())
    variances = checked_variances(parameters, posterior)
    if len(inputs) == 0:
        raise ValueError("inputs holds no example: give a batch of at least one.")
    with differentiable(parameters, variances, inputs.device.type):
        inputs = inputs.clone() if inputs.is_inference() else inputs
        plan = plan_of(model, parameters.values(), inputs[:1])
        if directions is not None and directions.shape != (len(inputs), plan.classes):
            raise ValueError(
                f"directions has shape {tuple(directions.shape)}, but the logits have shape "
                f"{(len(inputs), plan.classes)}."
            )
        height = plan.classes if directions is None else 1
        shape = (len(inputs), height, height) if reduce is _gram else (len(inputs), height)
        total = torch.zeros(shape, dtype=plan.dtype, device=plan.device)

        @torch.no_grad()
        def add(batch: slice, logits: Tensor, sources: Sequence[Layer | Parameter], cost: int) -> None:
            """Goes backward from the logits of a batch to all sources; `cost` is in bytes per class."""
            room = memory_limit - plan.scratch - len(logits) * plan.forward
            for part in slices(height, height if reduce is _gram else room // cost):
                along = _unit_vectors(logits, part) if directions is None else directions[batch].unsqueeze(0)
                gradients = _backward(logits, [source.target for source in sources], along.to(logits))
                for source in reversed(sources):
                    gradient = gradients.pop()  # freed one by one
                    if gradient is not None:
                        for rows, factor in source.pieces(gradient.to(total.dtype)):
                            total[batch][rows, part].add_(reduce(factor))

        dims = None
        cost = plan.forward + height * plan.backward
        for batch in slices(len(inputs), (memory_limit - plan.scratch) // cost):
            logits, calls = record(model, inputs[batch])
            if dims is None:
                several = calls if len(logits) > 1 else record(model, torch.cat([inputs[:1], inputs[:1]]))[1]
                dims = plan.batch_dims(several, max(2, len(logits)))
            layers, others = explain(logits, calls, dims, parameters, variances)
            if layers:
                add(batch, logits, layers, len(logits) * plan.backward)
            del logits, calls, layers  # and with them the graph
            if others:
                one_class = plan.backward + 3 * sum(bytes_of(other.variance) for other in others)
                for i in range(*batch.indices(len(inputs))):
                    one = slice(i, i + 1)
                    add(one, checked_logits(model(inputs[one]), 1), others, one_class)
    return total


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
