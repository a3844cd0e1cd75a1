"""A network with task labels, as a module of its inputs alone: what function variance and curvature take."""

from __future__ import annotations

from torch import Tensor, nn

from bayesdual.stream import Predict


class OneTask(nn.Module):
    """``predict`` for one task label, as a module of the inputs alone with the parameters of ``model``."""

    def __init__(self, model: nn.Module, predict: Predict, task: Tensor) -> None:
        super().__init__()
        self.model = model
        self._call = lambda x: predict(x, task.expand(len(x)))  # in a lambda, so that a module stays unregistered

    def forward(self, x: Tensor) -> Tensor:
        return self._call(x)
