"""Prediction by samples of all weights that are uncertain, as those of an adapter and its head.

    p = 1/S sum_s softmax f(x; theta_s),    theta_s ~ N(mean, diag(1 / precision))

It takes a forward pass a sample.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn
from torch.func import functional_call

from bayesdual.posterior import Posterior
from bayesdual.stream import Predict


class ByWeights:
    """Class probabilities averaged over samples of the weights.

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
    ) -> Tensor:
        if posterior is None:
            raise ValueError("there is no posterior of the weights to sample: train by IVON, or predict by the mean.")
        model = _Predicting(module, predict, t)
        generator = Generator(next(iter(posterior.mean.values())).device).manual_seed(0)  # as for every other batch
        total: Tensor | None = None
        for _ in range(self.samples):
            draw = {f"model.{name}": value.to(x.device) for name, value in posterior.sample(generator).items()}
            p = functional_call(model, draw, (x,)).softmax(1)
            total = p if total is None else total + p
        assert total is not None
        return total / self.samples


class _Predicting(nn.Module):
    """``predict`` as a module with the parameters of ``model``, which it calls."""

    def __init__(self, model: nn.Module, predict: Predict, t: Tensor) -> None:
        super().__init__()
        self.model = model
        self._call = lambda x: predict(x, t)  # in a lambda, so that a module stays unregistered

    def forward(self, x: Tensor) -> Tensor:
        return self._call(x)
