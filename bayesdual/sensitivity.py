"""How much a model hangs on each example, read off its posterior.

With p the predicted probabilities, y the one-hot label and v = diag(J Sigma J^T) the variance of the logits:

    residual   e_c = p_c - y_c
    lambda     lambda_c = p_c (1 - p_c)                     the curvature of the loss (FROMP: score sum_c lambda_c)
    leverage   sum_c lambda_c v_c                           how far the example moves its own prediction
    MPE        sum_c |e_c lambda_c v_c|                     Nickl, Xu et al., NeurIPS 2023

An example that the model is sure of scores near 0 in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn


def curvature(probabilities: Tensor) -> Tensor:
    """Returns lambda, shape (B, C), of predicted probabilities of the same shape."""
    return probabilities * (1 - probabilities)


def leverage(probabilities: Tensor, variance: Tensor) -> Tensor:
    """Returns the leverage of each example, shape (B,).

    Args:
        probabilities: Predicted probabilities, shape (B, C).
        variance: Variance of the logits, shape (B, C).
    """
    return (curvature(probabilities) * variance).sum(1)


def memory_perturbation(probabilities: Tensor, y: Tensor, variance: Tensor) -> Tensor:
    """Returns the MPE score of each example, shape (B,).

    Args:
        probabilities: Predicted probabilities, shape (B, C).
        y: Labels, shape (B,).
        variance: Variance of the logits, shape (B, C).
    """
    residual = probabilities - F.one_hot(y, probabilities.shape[1])
    return (residual * curvature(probabilities) * variance).abs().sum(1)


def last_layer_variance(features: Tensor, weight_variance: Tensor, bias_variance: Tensor | None) -> Tensor:
    """Variance of the logits due to the last (linear) layer alone, v_c = sum_j phi_j^2 s_cj + s_c.

    Args:
        features: Inputs phi of the last layer, shape (B, D).
        weight_variance: Posterior variance of its weights, shape (C, D).
        bias_variance: Posterior variance of its bias, shape (C,), or None.

    Returns:
        Shape (B, C).
    """
    variance = features.square() @ weight_variance.T
    return variance if bias_variance is None else variance + bias_variance


class LastLinear:
    """The linear layer that was called last in the latest forward pass, and what went into it.

    Attributes:
        name: Its name in the module; None before a forward pass, or if it has no linear layer.
        features: Its input, shape (B, D).
    """

    name: str | None = None
    features: Tensor | None = None

    def variance(self, posterior_variance: Mapping[str, Tensor]) -> Tensor | None:
        """Variance of this layer's outputs, shape (B, C); None if the posterior does not know its weights."""
        weight = posterior_variance.get(f"{self.name}.weight")
        if self.features is None or weight is None:
            return None
        return last_layer_variance(self.features, weight, posterior_variance.get(f"{self.name}.bias"))


@contextmanager
def watching_last_linear(module: nn.Module) -> Iterator[LastLinear]:
    """Keeps, while entered, the input of the linear layer that each forward pass of ``module`` calls last."""
    last = LastLinear()

    def watch(name: str) -> object:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            last.name, last.features = name, inputs[0].detach()

        return hook

    handles = [m.register_forward_hook(watch(n)) for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    try:
        yield last
    finally:
        for handle in handles:
            handle.remove()
