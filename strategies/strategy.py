"""The algorithm as an Avalanche strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from avalanche.core import BasePlugin
from avalanche.distributed import DistributedHelper
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.evaluation import default_evaluator
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.templates.strategy_mixin_protocol import CriterionType
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesdual.algorithm import BayesDual as Algorithm
from bayesdual.kprior import WeightPrior
from bayesdual.memory import Condensation, Selection, memory_vectors
from bayesdual.strategies.plugin import BayesDualPlugin
from bayesdual.stream import TensorData, TensorLoader, normalise


class BayesDual(SupervisedTemplate):
    """Continual learning with a posterior, a memory of exemplars and a K-prior.

    ``Naive`` with :class:`BayesDualPlugin`, and with batches by indexing where an experience can give its data as
    tensors, as all of ``bayesdual.scenarios`` do.

    Args:
        model: PyTorch model.
        optimizer: Any optimizer of its parameters; IVON gives the posterior that scores examples.
        criterion: Loss of new examples.
        mem_size: Greatest number of exemplars kept.
        train_mb_size: New examples in a training batch.
        train_epochs: Epochs of training on each experience.
        eval_mb_size: Examples in an evaluation batch.
        device: Where the model is.
        plugins: Further plugins.
        evaluator: Avalanche's evaluation plugin, or what makes one.
        eval_every: As for other strategies of Avalanche's.
        peval_mode: As for other strategies of Avalanche's.
        task_free: See :class:`BayesDualPlugin`.
        lr_end: See :class:`BayesDualPlugin`.
        replay_batch_size: For this and all below see :class:`bayesdual.algorithm.BayesDual`; None: its default.
        label_share: Share of the labels in replay; the rest is the soft labels'.
        temperature: Temperature of the soft labels.
        weight_prior: What holds the weights where the past needs them.
        selection: Which examples of each class are kept.
        candidates: Examples of each class that are chosen among.
        spread: Scale of the noise that gives replayed means of examples the spread of these.
        condensation: How an exemplar is made to stand for the examples around it; None: not at all.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        criterion: CriterionType | None = None,
        mem_size: int = 200,
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = 1,
        device: str | torch.device = "cpu",
        plugins: Sequence[BasePlugin] | None = None,
        evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin] = default_evaluator,
        eval_every: int = -1,
        peval_mode: str = "epoch",
        task_free: bool = False,
        lr_end: float = 1.0,
        replay_batch_size: int | None = None,
        label_share: float | None = None,
        temperature: float | None = None,
        weight_prior: WeightPrior | None = None,
        selection: Selection | None = None,
        candidates: int | None = None,
        spread: float | None = None,
        condensation: Condensation | None = memory_vectors,
    ) -> None:
        options = {
            "replay_batch_size": replay_batch_size,
            "label_share": label_share,
            "temperature": temperature,
            "weight_prior": weight_prior,
            "selection": selection,
            "candidates": candidates,
            "spread": spread,
        }
        given = {name: value for name, value in options.items() if value is not None}
        ours = BayesDualPlugin(Algorithm(mem_size, condensation=condensation, **given), task_free, lr_end)
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss() if criterion is None else criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=[ours, *(plugins or ())],
            evaluator=evaluator,
            eval_every=eval_every,
            peval_mode=peval_mode,
        )
        self.algorithm = ours.algorithm

    def make_train_dataloader(self, shuffle: bool = True, drop_last: bool = False, **kwargs: Any) -> None:
        if (data := self._tensors()) is None:
            super().make_train_dataloader(shuffle=shuffle, drop_last=drop_last, **kwargs)
        else:
            self.dataloader = TensorBatches(data, self.train_mb_size, shuffle, drop_last)

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        if (data := self._tensors()) is None:
            super().make_eval_dataloader(**kwargs)
        else:
            self.dataloader = TensorBatches(data, self.eval_mb_size)

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        super().train_dataset_adaptation(**kwargs)
        self._own_dataset = self.adapted_dataset

    def eval_dataset_adaptation(self, **kwargs: Any) -> None:
        super().eval_dataset_adaptation(**kwargs)
        self._own_dataset = self.adapted_dataset

    def _tensors(self) -> TensorData | None:
        """The experience's data as tensors; None if it has none, or a plugin has put other data in its place."""
        changed = self.adapted_dataset is not self._own_dataset
        if changed or DistributedHelper.is_distributed or not hasattr(self.experience, "tensors"):
            return None
        return self.experience.tensors()


class TensorBatches:
    """Batches as Avalanche's loaders give them, by indexing; shuffled anew each time it is gone through.

    Args:
        data: The examples.
        batch_size: Examples of a batch.
        shuffle: Whether the order is drawn, from PyTorch's default generator.
        drop_last: Whether to leave out a last batch that is smaller.
    """

    def __init__(self, data: TensorData, batch_size: int, shuffle: bool = False, drop_last: bool = False) -> None:
        self._data = data
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._drop_last = drop_last

    def __len__(self) -> int:
        return len(self._data) // self._batch_size if self._drop_last else -(-len(self._data) // self._batch_size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        seed = int(torch.randint(2**31, ())) if self._shuffle else None
        loader = TensorLoader(self._data, self._batch_size, seed)
        for (x, y, t), _ in zip(loader, range(len(self)), strict=False):
            yield [normalise(x, self._data.mean, self._data.std), y, t]
