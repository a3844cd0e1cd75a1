"""The curvature of a loss, measured: the diagonal of the generalised Gauss-Newton matrix (GGN), summed over examples.

    h = sum_i w_i diag(J_i^T Lambda_i J_i),     Lambda_i = diag(p_i) - p_i p_i^T

As Lambda = sum_k p_k (p - e_k)(p - e_k)^T, h is a sum over pairs of example and label that the network may give,

    h = sum_ik q_ik (J_i^T r_ik / |r_ik|)^2,     r_ik = p_i - e_k,     q_ik = w_i p_ik |r_ik|^2

and m pairs drawn in proportion to q, each with the weight sum(q) / m, estimate it without bias from one backward pass
of m examples. Drawing by q spends no pair on examples that the network is sure of, which is most of them.

Of targets that are no classes, Lambda and the factors r_k are the likelihood's (``bayesdual/likelihoods``).

The squares come from the rules of function variance: e^T J Sigma J^T e = sum_p sigma_p^2 (J^T e)_p^2 is linear in the
variances, so that its derivative by them is (J^T e)^2, for every layer that has a rule.

Sources: Martens, "New insights and perspectives on the natural gradient method", JMLR 2020 (GGN, Fisher); Kunstner,
Balles & Hennig, NeurIPS 2019 (why labels are the network's, not the data's).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.posterior.backward import MEMORY, backward_passes
from bayesdual.posterior.checks import differentiable, not_inference, refuse_train_mode
from bayesdual.posterior.recording import plan_of
from bayesdual.rounding import at_least_single


def ggn_diagonal(
    model: nn.Module,
    inputs: Tensor,
    weights: Tensor,
    *,
    pairs: int = 1000,
    generator: torch.Generator | None = None,
    batch_size: int = 1000,
    memory_limit: int = MEMORY,
) -> dict[str, Tensor]:
    """Estimate of h above, without bias.

    Args:
        model: module with `model(inputs)` -> logits (B, C), in eval mode if it has batch norm or dropout.
        inputs: examples (N, ...).
        weights: w, how many examples each stands for, shape (N,).
        pairs: m.
        generator: source of randomness, on the CPU.
        batch_size: examples of a forward pass.
        memory_limit: bytes to aim at in the backward passes.

    Returns:
        h by parameter name, of the parameters that require a gradient and are used.

    Raises:
        ValueError: a norm layer or dropout is in train mode, or the logits are not (B, C).
    """
    refuse_train_mode(model)
    with torch.no_grad():
        logits = torch.cat([model(part) for part in inputs.split(batch_size)])
    rows, directions = draw_pairs(logits, weights, pairs, generator)
    return squared_gradients(model, inputs[rows], directions, memory_limit=memory_limit)


def exact_ggn_diagonal(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """h above with w = 1, over every label instead of drawn ones: as many backward passes as there are classes.

    Args:
        model: As in :func:`ggn_diagonal`.
        inputs: examples (N, ...).

    Returns:
        As :func:`ggn_diagonal`.
    """
    with torch.no_grad():
        p = model(inputs).softmax(1)
    total: dict[str, Tensor] = {}
    for label, e in enumerate(torch.eye(p.shape[1]).to(p)):
        for name, value in squared_gradients(model, inputs, (p - e) * p[:, label : label + 1].sqrt()).items():
            total[name] = total[name] + value if name in total else value
    return total


def draw_pairs(
    logits: Tensor,
    weights: Tensor,
    pairs: int,
    generator: torch.Generator | None = None,
    likelihood: Likelihood = CATEGORICAL,
) -> tuple[Tensor, Tensor]:
    """Draws m pairs of an example and a label (a factor of its curvature) in proportion to q, systematically.

    Args:
        logits: shape (N, C).
        weights: w, shape (N,).
        pairs: m.
        generator: source of randomness, on the CPU.
        likelihood: of the targets.

    Returns:
        The row of each pair, shape (m,), and r sqrt(sum(q) / m) / |r|, shape (m, C): the directions whose squared
        gradients sum to h.
    """
    lengths = likelihood.squared_lengths(logits)
    until = (weights.to(lengths)[:, None] * lengths).flatten().double().cumsum(0)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    places = (torch.arange(pairs, dtype=torch.float64) + start).to(until.device) * (until[-1] / pairs)
    pair = torch.searchsorted(until, places).clamp_max(until.numel() - 1)  # rounding
    rows, labels = pair // lengths.shape[1], pair % lengths.shape[1]
    r = likelihood.directions(logits[rows], labels)
    return rows, r * ((until[-1] / pairs).sqrt().to(r) / r.norm(dim=1, keepdim=True).clamp_min(1e-12))


def squared_gradients(
    model: nn.Module, inputs: Tensor, directions: Tensor, *, memory_limit: int = MEMORY
) -> dict[str, Tensor]:
    """sum_b (J_b^T e_b)^2 by parameter name, exactly, without the gradients of single examples.

    Args:
        model: as in :func:`ggn_diagonal`.
        inputs: shape (B, ...).
        directions: e, shape (B, C).
        memory_limit: bytes to aim at.

    Raises:
        ValueError: as there, or there is no example.
    """
    refuse_train_mode(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ones = {
        name: torch.ones_like(p, dtype=at_least_single(p.dtype), requires_grad=True) for name, p in parameters.items()
    }
    total = {name: torch.zeros_like(v, requires_grad=False) for name, v in ones.items()}
    with differentiable(dict(model.named_parameters()), ones, inputs.device.type):
        inputs = not_inference(inputs)
        plan = plan_of(model, model.parameters(), inputs[:1])
        for _, _, source, gradient in backward_passes(model, inputs, plan, ones, memory_limit, directions):
            for _, factor in source.pieces(gradient):
                by_name = torch.autograd.grad(
                    factor.square().sum(), list(ones.values()), retain_graph=True, allow_unused=True
                )
                for name, part in zip(ones, by_name, strict=True):
                    if part is not None:
                        total[name] += part
    return total
