"""Prediction by the exact variance of the logits that is due to the last layer, in one forward pass.

    p = softmax(f / sqrt(1 + pi v / 8)),    v_c = phi^T [H^-1]_cc phi

with H the precision of all weights of the last layer jointly (``bayesdual/posterior/last_layer.py``). In the last layer
the network is linear, so that the logits are Gaussian without an approximation.

What the weights are unsure of is the mutual information by samples of them, which a shift does not touch.

The factor takes each logit for itself. A shift of all logits, which softmax does not see and only the prior holds, is
part of every v_c, and makes this less sure than the average over samples is; on Fashion-MNIST the former is the better
calibrated (docs/bayes_duality.md).

Sources: MacKay, "The evidence framework applied to classification networks", Neural Computation 1992 (the factor);
Kristiadi, Hein & Hennig, ICML 2020 (the last layer).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from bayesdual.measures import split_entropy
from bayesdual.posterior import Posterior
from bayesdual.prediction.last_layer import logits_and_features
from bayesdual.prediction.predicted import Predicted
from bayesdual.stream import Predict

DRAWS = 32  # of the weights, for what they are unsure of


class Linearised:
    """Logits drawn towards each other as far as they are uncertain."""

    def __call__(
        self, module: nn.Module, predict: Predict, posterior: Posterior | None, x: Tensor, t: Tensor
    ) -> Predicted:
        last, f, phi = logits_and_features(module, predict, posterior, x, t)
        drawn = f + last.deviations(phi, DRAWS)
        return Predicted(probit(f, last.variance(phi)).softmax(1), split_entropy(drawn.softmax(2)).epistemic)


def probit(f: Tensor, v: Tensor) -> Tensor:
    """Logits whose softmax approximates the mean softmax of Gaussian logits.

    Args:
        f: Their means, shape (B, C).
        v: Their variances, shape (B, C).
    """
    return f / (1 + math.pi / 8 * v).sqrt()
