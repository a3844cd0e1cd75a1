"""The prior's precision by the evidence: how probable the data are by the Laplace approximation, weights averaged out.

With P weights of the prior N(0, 1/delta I) at w, and the curvature H = sum_k lambda_k u_k u_k^T of the data there,

    log p(D | delta) ~ log p(D | w) + 1/2 (P log delta - delta |w|^2 - sum_k log(lambda_k + delta))

which is the largest where the weights are as long as the prior has them, counting those that the data determine:

    delta |w|^2 = gamma(delta) = sum_k lambda_k / (lambda_k + delta)

The right side falls with delta and the left one rises, so that there is one solution, found by bisection; layers with
precisions of their own are solved each for itself. It takes w to be the mode of the posterior that has this prior.
Where w was found by few steps, or is held by something else, the data seem to determine less of it than they do, and
delta comes out small (docs/calibration.md has where that matters).

Sources: MacKay, "Bayesian interpolation", Neural Computation 1992 (gamma); Immer et al., "Scalable marginal likelihood
estimation for model selection in deep learning", ICML 2021 (Laplace's evidence of networks).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual.posterior.last_layer import LastLayerPosterior

HALVINGS = 100  # of an interval in log delta
LARGEST = 10**8  # numbers in the blocks of all classes


def log_evidence(eigenvalues: Tensor, squared_length: float, prior_precision: float) -> float:
    """The terms above that depend on delta, in nats.

    Args:
        eigenvalues: lambda, of the curvature of the data, shape (P,), 0 or more.
        squared_length: |w|^2.
        prior_precision: delta.
    """
    log_ratio = (eigenvalues.double() / prior_precision).log1p().sum()
    return -0.5 * (prior_precision * squared_length + float(log_ratio))


def evidence_precision(eigenvalues: Tensor, squared_length: float) -> float:
    """The prior precision of the largest evidence, delta.

    Args:
        eigenvalues: lambda, of the curvature of the data, shape (P,), 0 or more.
        squared_length: |w|^2, how far the weights are from the prior's mean.

    Raises:
        ValueError: The weights are 0, or the data determine none of them, so that there is no largest evidence; or an
            eigenvalue is negative or not finite.
    """
    values = eigenvalues.double().flatten()
    if not bool((values >= 0).all() and values.isfinite().all()):
        raise ValueError("an eigenvalue of the curvature is negative or not finite: there is no evidence of it.")
    if not squared_length > 0 or not bool((values > 0).any()):
        raise ValueError("the weights or their curvature are all 0: no prior precision has the largest evidence.")
    low, high = -60.0, 60.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        delta = torch.tensor(middle).double().exp()
        if float((values / (values + delta)).sum()) > float(delta) * squared_length:
            low = middle
        else:
            high = middle
    return float(torch.tensor(low).double().exp())


@dataclass(frozen=True, eq=False)
class ClassBlocks:
    """The precision of a last layer class by class, for heads too large for H: without what ties classes together.

        H_c = delta I + sum_i w_i p_ic (1 - p_ic) phi_i phi_i^T = delta I + U_c diag(lambda_c) U_c^T

    Attributes:
        eigenvalues: lambda, shape (C, M); M is K, or C K where U has the rows of c of the whole H's eigenvectors.
        eigenvectors: U, shape (C, K, M).
        prior_precision: delta.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    prior_precision: float

    @classmethod
    def of(cls, last: LastLayerPosterior) -> ClassBlocks:
        """Those of a posterior, with its prior.

        Raises:
            ValueError: They would take more than 400 MB.
        """
        classes, size = last.probabilities.shape[1], last.features.shape[1]
        if classes * size**2 > LARGEST:
            raise ValueError(
                f"the last layer has {classes} classes of {size} weights each, whose covariances would take "
                f"{classes * size**2 / 2.5e8:.1f} GB: predict by the mean."
            )
        phi, p = last.features, last.probabilities
        parts = [torch.linalg.eigh((phi.T * (last.weights * q * (1 - q))) @ phi) for q in p.T]
        values = torch.stack([part.eigenvalues for part in parts]).clamp_min(0)
        return cls(values, torch.stack([part.eigenvectors for part in parts]), last.prior_precision)

    @cached_property
    def _roots(self) -> Tensor:
        return self.eigenvectors * (self.eigenvalues + self.prior_precision).rsqrt()[:, None]

    def variance(self, features: Tensor) -> Tensor:
        """Variance of the logits, shape (B, C), for inputs of the layer (B, D)."""
        size = self.eigenvectors.shape[1]
        phi = F.pad(features.to(self.eigenvalues), (0, size - features.shape[1]), value=1.0)
        return torch.stack([(phi @ root).square().sum(1) for root in self._roots], 1).to(features.device)
