"""Prediction by the posterior's mean: p = softmax(f(x; mean)), or what another likelihood predicts of f."""

from __future__ import annotations

from torch import Tensor, nn

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.posterior import Posterior
from bayesdual.prediction.predicted import Predicted
from bayesdual.stream import Predict


class ByMean:
    """The network as it is, whatever the posterior.

    Args:
        likelihood: Of the targets.
    """

    def __init__(self, likelihood: Likelihood = CATEGORICAL) -> None:
        self.likelihood = likelihood

    def __call__(
        self, module: nn.Module, predict: Predict, posterior: Posterior | None, x: Tensor, t: Tensor
    ) -> Predicted:
        return Predicted(self.likelihood.predicted(predict(x, t)))
