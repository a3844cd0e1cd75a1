"""Prediction by the posterior's mean: p = softmax(f(x; mean))."""

from __future__ import annotations

from torch import Tensor, nn

from bayesdual.posterior import Posterior
from bayesdual.prediction.predicted import Predicted
from bayesdual.stream import Predict


class ByMean:
    """The network as it is, whatever the posterior."""

    def __call__(
        self, module: nn.Module, predict: Predict, posterior: Posterior | None, x: Tensor, t: Tensor
    ) -> Predicted:
        return Predicted(predict(x, t).softmax(1))
