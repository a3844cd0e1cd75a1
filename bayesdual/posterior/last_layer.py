"""The last linear layer of a network, f = W phi: what goes into it, and what is uncertain of the logits because of it.

With a diagonal posterior of W, of variances s, the logits have the variance v_c = sum_j phi_j^2 s_cj. With the whole
generalised Gauss-Newton matrix of inputs i that count w_i each, exact for this layer,

    W ~ N(mean, H^-1),    H = delta I + sum_i w_i Lambda_i (x) phi_i phi_i^T,    v_c = phi^T [H^-1]_cc phi

where a bias is the weight of an input that is always 1.

Source: Kristiadi, Hein & Hennig, "Being Bayesian, even just a bit, fixes overconfidence in ReLU networks", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 8192  # weights of a last layer whose covariances are computed


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


def check_size(weights: int) -> None:
    """Refuses a last layer of more weights than covariances are computed of.

    Raises:
        ValueError: It has more.
    """
    if weights > LARGEST:
        raise ValueError(
            f"the last layer has {weights} weights, and covariances are computed of at most {LARGEST}: predict by the "
            "mean."
        )


class LastLinear:
    """The linear layer that was called last in the latest forward pass, and what went into it.

    Attributes:
        name: Its name in the module; None before a forward pass, or if it has no linear layer.
        layer: The layer.
        features: Its input, shape (B, D).
        output: Its output, shape (B, C).
    """

    name: str | None = None
    layer: nn.Linear | None = None
    features: Tensor | None = None
    output: Tensor | None = None

    def gives(self, logits: Tensor) -> bool:
        """Whether logits (B, C) are its output, but for classes that were made impossible."""
        if self.output is None or self.output.shape != logits.shape:
            return False
        return bool(((logits == self.output) | (logits.softmax(1) == 0)).all())

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

    def watch(name: str) -> Callable[[nn.Linear, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            last.name, last.layer, last.features, last.output = name, layer, inputs[0].detach(), output.detach()

        return hook

    handles = [m.register_forward_hook(watch(n)) for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    try:
        yield last
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, eq=False)
class LastLayerPosterior:
    """N(mean, H^-1) over the weights of the last layer, kept as what H is the sum over: far smaller than H.

    Attributes:
        name: The layer's name in the network.
        features: phi, with the 1 of a bias at the end if the layer has one, shape (N, K).
        probabilities: p, shape (N, C).
        weights: w, shape (N,).
        prior_precision: delta.
    """

    name: str
    features: Tensor
    probabilities: Tensor
    weights: Tensor
    prior_precision: float

    @classmethod
    def joined(cls, parts: Sequence[LastLayerPosterior | None]) -> LastLayerPosterior | None:
        """Of all inputs of several; None where one is missing or of another layer, as tasks with their own heads."""
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or len({(part.name, part.probabilities.shape[1]) for part in known}) != 1:
            return None
        features, probabilities, weights = (
            torch.cat([getattr(part, name) for part in known]) for name in ("features", "probabilities", "weights")
        )
        return cls(known[0].name, features, probabilities, weights, known[0].prior_precision)

    def precision(self) -> Tensor:
        """H, shape (C K, C K), class by class.

        Raises:
            ValueError: It would be too large.
        """
        classes, size = self.probabilities.shape[1], self.features.shape[1]
        check_size(classes * size)
        p, phi = self.probabilities, self.features
        h = phi.new_empty(classes, size, classes, size)
        for c in range(classes):
            for d in range(c + 1):
                lam = self.weights * p[:, c] * (float(c == d) - p[:, d])
                h[c, :, d] = h[d, :, c] = (phi.T * lam) @ phi
        h = h.view(classes * size, classes * size)
        h.diagonal().add_(self.prior_precision)
        return h

    @cached_property
    def _factor(self) -> Tensor:
        return torch.linalg.cholesky(self.precision())

    @cached_property
    def _covariances(self) -> Tensor:
        """[H^-1]_cc, shape (C, K, K)."""
        classes, size = self.probabilities.shape[1], self.features.shape[1]
        whole = torch.cholesky_inverse(self._factor).view(classes, size, classes, size)
        return torch.stack([whole[c, :, c] for c in range(classes)])

    def variance(self, features: Tensor) -> Tensor:
        """v of the logits, shape (B, C), for inputs of the layer (B, D); errors as :meth:`precision`."""
        phi = self._with_one(features)
        return torch.stack([((phi @ s) * phi).sum(1) for s in self._covariances], 1).to(features.device)

    @cached_property
    def _draws(self) -> dict[tuple[int, int], Tensor]:
        """Sampled weights less their mean, each of shape (S, C, K), by their number and seed."""
        return {}

    def deviations(self, features: Tensor, samples: int, seed: int = 0) -> Tensor:
        """How far sampled weights take the logits from the mean's, shape (S, B, C); errors as :meth:`precision`.

        Args:
            features: Inputs of the layer, shape (B, D).
            samples: S.
            seed: Of the weights: those of a seed are drawn once, and are the same for all inputs.
        """
        if (samples, seed) not in self._draws:
            classes, size = self.probabilities.shape[1], self.features.shape[1]
            noise = torch.randn(classes * size, samples, generator=torch.Generator().manual_seed(seed))
            drawn = torch.linalg.solve_triangular(self._factor.T, noise.to(self._factor), upper=True)
            self._draws[samples, seed] = drawn.T.view(samples, classes, size)
        return (self._with_one(features) @ self._draws[samples, seed].mT).to(features.device)

    def _with_one(self, features: Tensor) -> Tensor:
        return F.pad(features.to(self.features), (0, self.features.shape[1] - features.shape[1]), value=1.0)
