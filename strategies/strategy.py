"""The algorithm as an Avalanche strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from avalanche.benchmarks import OnlineCLExperience
from avalanche.core import BasePlugin
from avalanche.distributed import DistributedHelper
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import InteractiveLogger
from avalanche.models.utils import is_multi_task_module
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.evaluation import default_evaluator
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.templates.strategy_mixin_protocol import CriterionType
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVONByRule
from bayesdual.prediction import ask
from bayesdual.random_state import kept_random_state
from bayesdual.strategies.plugin import BayesDualPlugin
from bayesdual.stream import DatasetData, DatasetLoader, Parts, TensorData, TensorLoader, experience_data, normalise


class BayesDualStrategy(SupervisedTemplate):
    """Continual learning with a posterior, a memory of exemplars and a K-prior::

        strategy = BayesDualStrategy(model=model, algorithm=BayesDual(memory_size=200), train_mb_size=64)
        for experience in benchmark.train_stream:
            strategy.train(experience)

    ``Naive`` with :class:`BayesDualPlugin`, with batches by indexing where an experience can give its data as tensors,
    as all of ``bayesdual.scenarios`` do, and with inputs of several parts, dicts or tuples of tensors.

    Args:
        model: PyTorch model.
        algorithm: What is remembered of the past, and how.
        optimizer: Any optimizer of the model's parameters; IVON gives the posterior that scores examples. None: IVON,
            with settings that follow from the first experience (see ``bayesdual.ivon.ivon_settings``): its number of
            examples, and the steps that it is learned in; the others should be about as large.
        criterion: Loss of new examples; None: that of the algorithm's likelihood, cross-entropy if there is no other.
        train_mb_size: New examples in a training batch, of each process.
        train_epochs: Epochs of training on each experience.
        eval_mb_size: Examples in an evaluation batch.
        device: Where the model is.
        plugins: Further plugins.
        evaluator: Avalanche's evaluation plugin, or what makes one; None: Avalanche's default, or, where there are no
            classes to be right about, one of the loss.
        eval_every: As for other strategies of Avalanche's.
        peval_mode: As for other strategies of Avalanche's.
        task_free: See :class:`BayesDualPlugin`.
        lr_end: See :class:`BayesDualPlugin`.

    Raises:
        ValueError: An argument is out of its range; or, in ``train``, no optimizer was given for a stream of pieces,
            which do not say how large an experience is; or another plugin, or several processes, have batches of
            inputs of several parts.
    """

    takes_parts = True
    adapted_dataset: Any  # Avalanche's types leave out that these two have a length
    dataloader: Any

    def __init__(
        self,
        *,
        model: nn.Module,
        algorithm: BayesDual,
        optimizer: Optimizer | None = None,
        criterion: CriterionType | None = None,
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = 1,
        device: str | torch.device = "cpu",
        plugins: Sequence[BasePlugin] | None = None,
        evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin] | None = None,
        eval_every: int = -1,
        peval_mode: str = "epoch",
        task_free: bool = False,
        lr_end: float = 0.0,
    ) -> None:
        self.algorithm = algorithm
        self._rule = IVONByRule() if optimizer is None else None
        ours = BayesDualPlugin(algorithm, task_free, lr_end)
        super().__init__(
            model=model,
            # Until it is known what is to be learned, IVON stands for itself, and takes a saved one's settings.
            optimizer=IVONByRule().make(model.parameters(), 1, 1) if optimizer is None else optimizer,
            criterion=algorithm.criterion if criterion is None else criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=[ours, *(plugins or ())],
            evaluator=evaluator or (default_evaluator if algorithm.likelihood.is_softmax else loss_evaluator),
            eval_every=eval_every,
            peval_mode=peval_mode,
        )
        self._task_free = task_free
        self._parts: Parts | None = None  # of the inputs of the experience under way

    def check_model_and_optimizer(self, *args: Any, **kwargs: Any) -> None:
        """As Avalanche's; then, before the very first step, IVON gets its settings by the rule."""
        super().check_model_and_optimizer(*args, **kwargs)
        if self._rule is not None and self.clock.train_iterations == 0:
            if self._task_free or isinstance(self.experience, OnlineCLExperience):
                raise ValueError(
                    "IVON's settings cannot follow from a piece of a stream, which does not say how large an "
                    "experience is: give optimizer, for example IVONByRule().make(model.parameters(), examples, steps)."
                )
            steps = self.train_epochs * len(self.dataloader)
            self.optimizer = self._rule.make(self.model.parameters(), len(self.adapted_dataset), steps)

    def make_train_dataloader(  # pyright: ignore[reportIncompatibleMethodOverride]  # it is called by keywords
        self, shuffle: bool = True, drop_last: bool = False, **kwargs: Any
    ) -> None:
        if (data := self._own_data()) is None:
            super().make_train_dataloader(shuffle=shuffle, drop_last=drop_last, **kwargs)
        else:
            self.dataloader = OwnBatches(data, self.train_mb_size, shuffle, drop_last)

    def make_eval_dataloader(self, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if (data := self._own_data()) is None:
            super().make_eval_dataloader(**kwargs)
        else:
            self.dataloader = OwnBatches(data, self.eval_mb_size)

    def forward(self) -> Any:
        """The model's output; a model that takes parts of inputs is given them."""
        if self._parts is None:
            return super().forward()
        told = {"task_labels": self.mb_task_id} if is_multi_task_module(self.model) else {}
        return ask(self.model, self._parts.unpacked(self.mb_x), **told)

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        super().train_dataset_adaptation(**kwargs)
        self._own_dataset = self.adapted_dataset

    def eval_dataset_adaptation(self, **kwargs: Any) -> None:
        super().eval_dataset_adaptation(**kwargs)
        self._own_dataset = self.adapted_dataset

    def _own_data(self) -> TensorData | DatasetData | None:
        """The experience's data where batches are ours: of tensors, or of several parts.

        None otherwise, and if a plugin has put other data in the place of tensors.
        """
        theirs = self.adapted_dataset is not self._own_dataset or DistributedHelper.is_distributed
        self._parts = self._find_parts()
        if self._parts is not None and theirs:
            raise ValueError(self._not_ours())
        if self._parts is not None:
            return experience_data(self.experience, self.algorithm.likelihood.targets)
        tensors = getattr(self.experience, "tensors", None)
        return None if tensors is None or theirs else tensors()

    def _unpack_minibatch(self) -> None:
        if self._parts is not None and not isinstance(self.mb_x, Tensor):
            raise ValueError(self._not_ours())
        super()._unpack_minibatch()

    def _not_ours(self) -> str:
        return (
            f"an input of the stream is {self._parts}, and batches are those of another plugin, or of one of several "
            "processes: leave that out, or give inputs that are one tensor."
        )

    def _find_parts(self) -> Parts | None:
        dataset: Any = getattr(self.experience, "dataset", ())
        if hasattr(self.experience, "tensors") or not len(dataset):
            return None
        with kept_random_state():  # augmentation may draw
            return Parts.of(dataset[0][0], "the stream")


def loss_evaluator() -> EvaluationPlugin:
    """Measures the loss alone, and prints it, as Avalanche's default does with accuracy beside it."""
    return EvaluationPlugin(
        loss_metrics(minibatch=False, epoch=True, experience=True, stream=True), loggers=[InteractiveLogger()]
    )


class OwnBatches:
    """Batches as Avalanche's loaders give them, in an order of ours; shuffled again each time it is gone through.

    Args:
        data: The examples.
        batch_size: Examples of a batch.
        shuffle: Whether the order is drawn, from PyTorch's default generator.
        drop_last: Whether to leave out a last batch that is smaller.
    """

    def __init__(
        self, data: TensorData | DatasetData, batch_size: int, shuffle: bool = False, drop_last: bool = False
    ) -> None:
        self._data = data
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._drop_last = drop_last

    def __len__(self) -> int:
        return len(self._data) // self._batch_size if self._drop_last else -(-len(self._data) // self._batch_size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        seed = int(torch.randint(2**31, ())) if self._shuffle else None
        data, size = self._data, self._batch_size
        loader = TensorLoader(data, size, seed) if isinstance(data, TensorData) else DatasetLoader(data, size, seed)
        for (x, y, t), _ in zip(loader, range(len(self)), strict=False):
            yield [normalise(x, data.mean, data.std), y, t]
