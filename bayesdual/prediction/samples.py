"""Prediction by samples of the weights of the last layer, the others being at the mean.

    p = 1/S sum_s softmax(f + (W_s - mean) phi),    W_s ~ N(mean, H^-1)

One forward pass gives f and phi.
"""

from __future__ import annotations

from torch import Tensor, nn

from bayesdual.measures import split_entropy
from bayesdual.posterior import Posterior
from bayesdual.prediction.last_layer import logits_and_features
from bayesdual.prediction.predicted import Predicted
from bayesdual.stream import Predict


class BySamples:
    """Class probabilities averaged over samples.

    Args:
        samples: S.

    Raises:
        ValueError: ``samples`` is less than 1.
    """

    def __init__(self, samples: int = 32) -> None:
        if samples < 1:
            raise ValueError(f"samples is {samples}: give at least 1.")
        self.samples = samples

    def __call__(
        self, module: nn.Module, predict: Predict, posterior: Posterior | None, x: Tensor, t: Tensor
    ) -> Predicted:
        last, f, phi = logits_and_features(module, predict, posterior, x, t)
        p = (f + last.deviations(phi, self.samples)).softmax(2)
        return Predicted(p.mean(0), split_entropy(p).epistemic)
