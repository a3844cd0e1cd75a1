"""Regression as classification in Lightning, with any backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from lightning import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesdual.conformal.bins import GRIDS, GridName
from bayesdual.conformal.quantile import conformal_quantile
from bayesdual.conformal.regression_as_classification import BinLoss, RegressionAsClassification, two_hot_loss
from bayesdual.conformal.sets import Sets
from bayesdual.ivon import IVONByRule, IVONCallback
from bayesdual.models import evaluating
from bayesdual.schedule import lower_learning_rate


class BinnedRegression(LightningModule):
    """A network with one logit for each bin of a target, and the sets that its density gives.

    Batches are (inputs, targets). ``trainer.fit`` trains, :meth:`calibrate` scores examples that were not trained on,
    and :meth:`predict_set` gives sets. Checkpoints have the scores.

    Args:
        network: Inputs (B, ...) to logits (B, K).
        targets: Training targets, shape (n,), which the grid is made from.
        bins: K.
        bins_by: ``range`` or ``quantile``; the latter gives fewer bins where many targets are the same.
        loss: See ``regression_as_classification.py``.
        optimizer: Makes one of parameters; None: IVON by its rule.

    Raises:
        ValueError: The targets are all the same, or not finite.
    """

    grid: Tensor
    location: Tensor
    scale: Tensor
    scores: Tensor

    def __init__(
        self,
        network: nn.Module,
        targets: Tensor,
        bins: int = 50,
        bins_by: GridName = "range",
        loss: BinLoss = two_hot_loss,
        optimizer: Callable[[Iterable[Any]], Optimizer] | IVONByRule | None = None,
    ) -> None:
        super().__init__()
        if not bool(targets.isfinite().all()):
            raise ValueError(f"{int((~targets.isfinite()).sum())} of {len(targets)} targets are NaN or infinite.")
        targets = targets.float()
        grid = GRIDS[bins_by](targets, bins)
        self.network = network
        self.register_buffer("location", targets.mean())
        self.register_buffer("scale", targets.std())
        self.register_buffer("grid", (grid - targets.mean()) / targets.std())
        self.register_buffer("scores", torch.empty(0, dtype=torch.float64))
        self._loss = loss
        self._make_optimizer = IVONByRule() if optimizer is None else optimizer

    @property
    def method(self) -> RegressionAsClassification:
        """The method; its unit is the targets' standard deviation."""
        return RegressionAsClassification(self.grid, self._loss)

    def forward(self, x: Tensor) -> Tensor:
        """Returns densities at the grid points, shape (B, K), in float64."""
        return self.method.activate(self.network(x).double())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._loss_of(batch, "train_loss")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._loss_of(batch, "valid_loss")

    def _loss_of(self, batch: tuple[Tensor, Tensor], name: str) -> Tensor:
        x, y = batch
        loss = self.method.loss(self.network(x), (y - self.location) / self.scale)
        self.log(name, loss, batch_size=len(y))
        return loss

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Returns point predictions, shape (B,)."""
        x = batch[0] if isinstance(batch, list | tuple) else batch
        return self.method.mean(self(x)) * self.scale + self.location

    def configure_optimizers(self) -> Optimizer:
        make, params = self._make_optimizer, self.network.parameters()
        if not isinstance(make, IVONByRule):
            return make(params)
        steps = self.trainer.estimated_stepping_batches  # makes the loader
        return make.make(params, len(cast(Any, self.trainer.train_dataloader).dataset), steps)

    def configure_callbacks(self) -> list[Callback]:
        return [IVONCallback()]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if isinstance(self._make_optimizer, IVONByRule):  # which is made for a learning rate that falls to 0
            done = self.trainer.global_step / self.trainer.estimated_stepping_batches
            lower_learning_rate(cast(Optimizer, self.optimizers(use_pl_optimizer=False)), 0.0, done)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Scores the examples of batches that were not trained on, in place of those of before."""
        with evaluating(self):
            scores = [
                self.method.score(self(x.to(self.device)), (y.to(self.device) - self.location) / self.scale)
                for x, y in batches
            ]
        self.scores = torch.cat(scores)

    @torch.no_grad()
    def predict_set(self, x: Tensor, alpha: float = 0.1) -> Sets:
        """Sets that cover with probability 1 - alpha.

        Args:
            x: Inputs, shape (B, ...).
            alpha: Share of errors that is allowed.

        Raises:
            ValueError: ``alpha`` is out of its range, or there are too few calibration examples for it.
        """
        q = conformal_quantile(self.scores, alpha)
        with evaluating(self):
            sets = self.method.sets(self(x.to(self.device)), q)
        scale, location = float(self.scale), float(self.location)
        return [[(a * scale + location, b * scale + location) for a, b in row] for row in sets]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        self.scores = torch.empty_like(state_dict.get(f"{prefix}scores", self.scores))  # as many as were saved
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
