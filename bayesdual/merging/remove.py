"""Examples taken out of a posterior, to first order: the inverse of merging.

At the mean, the gradient of the loss of all data and the prior is 0. Without examples D it is -sum_{i in D} grad l_i
there, and one Newton step leads to where it is 0 again, if the loss is quadratic:

    mean  <-  mean + (H + delta)^-1 sum_{i in D} grad l_i(mean),      h  <-  h - h_D

H is the diagonal h - h_D, or Kronecker factors, which say more of the mean. Factors are those of all data, or, if they
are measured again, of the data that remain: to first order in the examples that is the same.

Sources: Guo et al., "Certified data removal", ICML 2020 (the Newton step); Nickl et al., "The memory perturbation
equation", NeurIPS 2023 (with a posterior).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bayesdual.models import evaluating
from bayesdual.posterior import Curvature, KroneckerFactors, Posterior, exact_ggn_diagonal


def remove(
    posterior: Posterior,
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    curvature: Mapping[str, Curvature] | None = None,
) -> Posterior:
    """The posterior without some of the examples that it has learned, as far as it knows them.

    Args:
        posterior: Of the weights given all data.
        module: Its network; it is not changed.
        inputs: The examples to take out, shape (N, ...), as the network takes them.
        labels: Their labels, shape (N,).
        curvature: Kronecker factors at the mean, for the step of the mean; None, or for parameters without: the
            posterior's own diagonal.

    Returns:
        Around the mean after the step; what the examples added to the diagonal is taken out of it, and where they added
        more than there is, nothing is left but the prior. The posterior of the last layer is dropped.

    Raises:
        ValueError: There is no example, inputs and labels are not as many, the posterior has no prior precision, or it
            is of another network.
    """
    if len(inputs) == 0 or len(inputs) != len(labels):
        raise ValueError(f"there are {len(inputs)} inputs and {len(labels)} labels: give one label for each of some.")
    delta = posterior.prior_precision
    if not delta > 0:
        raise ValueError("the posterior has no prior precision, and cannot do without examples: measure it with one.")
    shapes = {name: p.shape for name, p in module.named_parameters()}
    if different := sorted(n for n, v in posterior.mean.items() if shapes.get(n) != v.shape):
        raise ValueError(f"the posterior is of another network: {different[0]!r} has not its shape there.")
    with evaluating(module):
        gradients = _gradients(module, posterior, inputs, labels)
        theirs = _diagonal(module, posterior, inputs)
    remaining = {name: (h - theirs[name]).clamp_min(0) for name, h in posterior.curvature.items()}
    mean = dict(posterior.mean)
    factors = {n: h for n, h in (curvature or {}).items() if isinstance(h, KroneckerFactors)}
    for name, h in factors.items():
        rows = len(mean[name])
        change = gradients[name].reshape(rows, -1)
        if h.bias is not None:
            change = torch.cat([change, gradients[h.bias][:, None]], 1)
        step = h.solve(change, delta)
        if h.bias is not None:
            mean[h.bias] = mean[h.bias] + step[:, -1]
            step = step[:, :-1]
        mean[name] = mean[name] + step.reshape(mean[name].shape)
    done = {*factors, *(h.bias for h in factors.values())}
    for name in remaining.keys() - done:
        mean[name] = mean[name] + gradients[name] / (remaining[name] + delta)
    return Posterior(mean, remaining, delta)


def _gradients(module: nn.Module, posterior: Posterior, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The gradient of the sum of the examples' losses, at the mean, by parameter name."""
    weights = {name: posterior.mean[name].detach().requires_grad_() for name in posterior.curvature}
    with torch.enable_grad():
        logits = functional_call(module, {**posterior.mean, **weights}, (inputs,))
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def _diagonal(module: nn.Module, posterior: Posterior, inputs: Tensor) -> dict[str, Tensor]:
    """sum_i diag(J_i^T Lambda_i J_i) at the mean, over every label that may be given."""
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    try:
        _set(module, posterior.mean)
        return exact_ggn_diagonal(module, inputs)
    finally:
        _set(module, before)


@torch.no_grad()
def _set(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, p in module.named_parameters():
        if name in values:
            p.copy_(values[name])
