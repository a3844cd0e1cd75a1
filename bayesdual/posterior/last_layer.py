"""The last linear layer of a network: what goes into it, and the variance of the logits that is due to it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


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

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            last.name, last.features = name, inputs[0].detach()

        return hook

    handles = [m.register_forward_hook(watch(n)) for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    try:
        yield last
    finally:
        for handle in handles:
            handle.remove()
