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

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesdual.posterior.backward import MEMORY, backward_passes
from bayesdual.posterior.checks import (
    HasVariance,
    checked_logits,
    checked_variances,
    differentiable,
    not_inference,
    refuse_train_mode,
)
from bayesdual.posterior.recording import plan_of

# ---- What is computed --------------------------------------------------------------------------------------


def function_variance(
    model: nn.Module, inputs: Tensor, posterior: HasVariance, *, memory_limit: int = MEMORY
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
    model: nn.Module, inputs: Tensor, posterior: HasVariance, *, memory_limit: int = MEMORY
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
    memory_limit: int = MEMORY,
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
        model: as in `function_variance`.
        inputs: as in `function_variance`, shape (B, ...).
        posterior: as in `function_variance`.
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


# ---- Summing R R^T -----------------------------------------------------------------------------------------


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
    with differentiable(parameters, variances, inputs.device.type):
        inputs = not_inference(inputs)
        plan = plan_of(model, parameters.values(), inputs[:1])
        height = plan.classes if directions is None else 1
        shape = (len(inputs), height, height) if reduce is _gram else (len(inputs), height)
        total = torch.zeros(shape, dtype=plan.dtype, device=plan.device)
        passes = backward_passes(model, inputs, plan, variances, memory_limit, directions, whole=reduce is _gram)
        for batch, part, source, gradient in passes:
            with torch.no_grad():
                for rows, factor in source.pieces(gradient):
                    total[batch][rows, part].add_(reduce(factor))
    return total
