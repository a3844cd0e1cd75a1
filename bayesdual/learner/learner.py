"""The Lightning host: one LightningModule that learns a whole stream in a single ``Trainer.fit``."""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesdual import measures
from bayesdual.algorithm import BayesDual
from bayesdual.files import is_damaged
from bayesdual.ivon import IVONByRule, IVONCallback
from bayesdual.learner.datamodule import StreamDataModule
from bayesdual.learner.history import History
from bayesdual.learner.supported import refuse_unsupported, save_at_epoch_ends
from bayesdual.memory import IMPOSSIBLE
from bayesdual.models import evaluating
from bayesdual.posterior import Posterior
from bayesdual.prediction import PredictionName, check_last_layer, prediction_by
from bayesdual.random_state import random_state, set_random_state
from bayesdual.schedule import lower_learning_rate
from bayesdual.stream import Batch, normalise, task_classes


class Learner(LightningModule):
    """Learns the experiences of a :class:`StreamDataModule` one after the other, and evaluates after each.

    Args:
        network: Maps inputs to logits. In a stream with task labels its logits are masked to the task's classes; a
            network whose ``forward`` takes ``task_labels`` (Avalanche's multi-head modules) gets them instead.
        algorithm: What is remembered of the past, and how.
        optimizer: Makes an optimizer of the parameters; None: IVON, with settings that follow from the stream (see
            ``bayesdual.ivon.ivon_settings``). IVON gives the posterior that scores examples; with another there is
            none, and examples are scored by the curvature of their loss.
        lr_end: Learning rate at the end of each experience, as a share of that at its beginning; it falls linearly.
        prediction: By what classes are predicted in every evaluation: the ``mean`` of the weights, the average over
            ``samples`` of the last layer's, or, in one pass, the variance of the logits that is due to it
            (``linearised``); or the average over ``weight_samples`` of all weights, by the posterior that IVON has
            learned, a forward pass each.
        samples: Number of samples.
    """

    def __init__(
        self,
        network: nn.Module,
        algorithm: BayesDual,
        optimizer: IVONByRule | Callable[[Iterable], Optimizer] | None = None,
        lr_end: float = 0.0,
        prediction: PredictionName = "mean",
        samples: int = 32,
    ) -> None:
        super().__init__()
        if lr_end < 0:
            raise ValueError(f"model.lr_end is {lr_end}: it is a share of the learning rate, 0 or more.")
        self.network = network
        self.algorithm = algorithm
        self.lr_end = lr_end
        self.history = History()
        self._by_mean, self._prediction = prediction_by("mean"), prediction_by(prediction, samples)
        self._uses_posterior = prediction in ("samples", "linearised")  # of all data, of the last layer
        self._uses_ivons = prediction == "weight_samples"
        self._learned: Posterior | None = None  # IVON's, at the weights that are evaluated
        self._make_optimizer = IVONByRule() if optimizer is None else optimizer
        self._mean: tuple[float, ...] = ()  # of the stream's images
        self._std: tuple[float, ...] = ()
        self.latest_evaluation: measures.Evaluation | None = None
        self._metric = measures.StreamMetric(0)  # of the evaluation under way
        self._takes_task_labels = "task_labels" in inspect.signature(network.forward).parameters
        self._random_state: dict[str, Any] | None = None
        self._within_epoch = False
        self._loss_sum: Tensor | float = 0.0  # of the epoch: NaN once a loss was

    @property
    def stream(self) -> StreamDataModule:
        """The stream being learned.

        Raises:
            TypeError: The trainer was given other data.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
        if not isinstance(data, StreamDataModule):
            raise TypeError("Learner needs a stream: call Trainer.fit(learner, datamodule=StreamDataModule(...)).")
        return data

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Returns logits, shape (B, C).

        Args:
            x: Inputs as the stream gives them, shape (B, ...): uint8 images are normalised here.
            t: Task labels, shape (B,); needed in a stream with task labels.
        """
        x = normalise(x, self._mean, self._std)
        if self._takes_task_labels:
            return self.network(x, t)
        logits = self.network(x)
        return logits if self.task_mask is None else logits.masked_fill(~self.task_mask[t], IMPOSSIBLE)

    def probabilities(self, x: Tensor, t: Tensor) -> Tensor:
        """Class probabilities by the chosen prediction, shape (B, C); until a stream is learned, by the mean.

        Raises:
            ValueError: The prediction needs a posterior that there is not.
        """
        predict = self._by_mean if self.trainer.sanity_checking else self._prediction
        posterior = self._ivons_posterior() if self._uses_ivons else self.algorithm.posterior
        return predict(self.network, self, posterior, x, t)

    def _ivons_posterior(self) -> Posterior | None:
        if self._learned is None and self.trainer.state.fn == TrainerFn.FITTING:
            self._learned = self.posterior()
        return self._learned

    def configure_optimizers(self) -> Optimizer:
        params, make = self.network.parameters(), self._make_optimizer
        return make.make(params, *self._size()) if isinstance(make, IVONByRule) else make(params)

    def _size(self) -> tuple[float, float]:
        """Examples and steps of an experience, in the mean over experiences."""
        stream, trainer = self.stream, self.trainer
        sizes = stream.describe()["sizes"]
        batch = stream.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        return statistics.mean(sizes), stream.epochs * statistics.mean(-(-size // batch) for size in sizes)

    def configure_callbacks(self) -> list[Callback]:
        """IVON has to be told of batches where Lightning computes gradients outside of the optimizer's step."""
        outside = self.trainer.accumulate_grad_batches > 1 or self.trainer.precision == "16-mixed"
        return [IVONCallback()] if outside else []

    def setup(self, stage: str) -> None:
        stream = self.stream
        if self.trainer.ckpt_path is not None and is_damaged(self.trainer.ckpt_path):
            raise ValueError(f"the checkpoint {self.trainer.ckpt_path} is damaged: give another one.")
        if stage == "fit":
            refuse_unsupported(self.trainer, self.network)
        train = stream.stream("train")
        for module in self.network.modules():  # Avalanche's growing heads: grown before the optimizer is made
            if hasattr(module, "adaptation"):
                for experience in train:
                    cast(Any, module).adaptation(experience)
        sample = stream.evaluation_data("test")[0]
        self._mean, self._std = sample.mean, sample.std
        self.register_buffer("task_mask", None)
        n_logits = self._count_logits(sample)
        n_classes = 1 + max(c for classes in stream.describe()["classes"] for c in classes)
        if n_logits < n_classes:
            raise ValueError(
                f"model.network gives {n_logits} logits but data.benchmark has {n_classes} classes: "
                "give the network as many."
            )
        stream.check_labels(n_logits)
        if self._uses_posterior:
            self._check_posterior(sample)
        if not self._takes_task_labels:
            self.task_mask = task_classes(train, n_logits)
        if stage == "fit":
            self.algorithm.check_budget(sample, n_classes)
            if self.trainer.ckpt_path is None:
                self._begin(stream)
            _arrange(self.trainer, stream)

    def _begin(self, stream: StreamDataModule) -> None:
        """Goes back to the first experience of a stream that another learner has learned.

        Raises:
            ValueError: What is to be learned is not what comes after what this one has learned.
        """
        if stream.finished:
            stream.restart()
        if stream.experience == 0 and self.history.accuracy:
            raise ValueError(
                "this Learner has learned a stream already, and cannot learn a further one: make a new one, or give "
                "one benchmark that has all experiences."
            )
        if stream.experience == 0 and self.algorithm.memory.counts:
            raise ValueError("this algorithm has learned a stream already: make a new one for each Learner.")
        if len(self.history.accuracy) != stream.experience:
            raise ValueError(
                f"this Learner has learned {len(self.history.accuracy)} experiences and the StreamDataModule stands at "
                f"experience {stream.experience + 1}: make new ones, or resume from a checkpoint."
            )

    # -- training

    def on_fit_start(self) -> None:
        if self._uses_ivons and self.posterior() is None:
            raise ValueError(
                "model.prediction is weight_samples, which needs the posterior that IVON learns: give model.optimizer "
                "bayesdual.ivon.IVONByRule, or model.prediction mean."
            )
        self.history.start("total")
        self._agree()

    def on_train_start(self) -> None:
        if self._random_state is not None:
            set_random_state(self._random_state)
            self._random_state = None

    def on_train_epoch_start(self) -> None:
        self._within_epoch = True
        self._loss_sum = 0.0
        self.algorithm.begin_experience(
            self.stream.train_data(), self.device, self.trainer.global_rank, self.trainer.world_size
        )
        self._learned = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        done = (self.stream.epoch + batch_idx / self.trainer.num_training_batches) / self.stream.epochs
        lower_learning_rate(self._optimizer(), self.lr_end, done)

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        try:
            loss, parts = self.algorithm.loss(self.network, self, *batch)
        except ValueError as error:
            if len(batch[1]) > 1:
                raise
            raise ValueError(
                f"a batch of one example in {self._place()}: {error}; give another data.batch_size, so that no batch "
                "has only one."
            ) from error
        self._loss_sum = self._loss_sum + loss.detach()
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and self.trainer.global_step % every == 0:
            self._check_loss()
            lr = self._optimizer().param_groups[0]["lr"]
            self._log({"loss/total": loss.detach(), "learning_rate": lr} | {f"loss/{k}": v for k, v in parts.items()})
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.algorithm.precondition(self.network)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().optimizer_step(*args, **kwargs)
        except FloatingPointError as error:  # IVON refuses gradients that are not finite
            self._check_loss()
            raise FloatingPointError(f"{error} This was in {self._place()}; lower model.optimizer's lr.") from error

    def on_train_epoch_end(self) -> None:
        self._check_loss()
        if self.stream.last_epoch_of_experience:
            with self.history.timing("memory"):
                self._end_experience()
                self._agree()
            memory = self.algorithm.memory
            self._log({"memory/exemplars": len(memory), "memory/examples_seen": memory.examples_seen})
        self.stream.advance()
        self._within_epoch = False

    def on_train_end(self) -> None:
        self.history.stop("total")

    def posterior(self) -> Posterior | None:
        """The posterior over the weights of ``network``, or None if the optimizer has none."""
        return Posterior.of(self.network, self._optimizer())

    def _optimizer(self) -> Optimizer:
        return cast(Optimizer, self.optimizers(use_pl_optimizer=False))

    def _end_experience(self) -> None:
        stream = self.stream
        with evaluating(self.network):
            self.algorithm.end_experience(
                self.network, self, stream.train_data(), stream.experience, self.posterior(), self.device
            )

    def _agree(self) -> None:
        """Gives all processes the memory, the random draws to come and the order of examples that the first one has."""
        if self.trainer.world_size > 1:
            first = self.trainer.strategy.broadcast((self.algorithm.state_dict(), self.stream.state_dict()))
            self.algorithm.load_state_dict(first[0])
            self.stream.load_state_dict(first[1])

    def _check_loss(self) -> None:
        if not math.isfinite(float(self._loss_sum)):
            raise FloatingPointError(
                f"the loss became {float(self._loss_sum)} in {self._place()}: lower model.optimizer's lr; the last "
                "checkpoint is from before it."
            )

    def _place(self) -> str:
        return f"experience {self.stream.experience + 1}, epoch {self.stream.epoch + 1}"

    # -- evaluation

    def on_validation_start(self) -> None:
        self._check_loss()  # Lightning evaluates before the epoch ends
        trainer = self.trainer
        if self._uses_posterior and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            with self.history.timing("memory"), torch.inference_mode(False), evaluating(self.network):
                self.algorithm.measure_posterior(
                    self.network, self, self.stream.train_data(), self.stream.experience, self.posterior(), self.device
                )
        self.history.start("evaluation")
        self._metric = measures.StreamMetric(self.stream.n_experiences).to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y, t = batch
        self._metric.update(self.probabilities(x, t), y, dataloader_idx)

    def on_validation_end(self) -> None:
        self.latest_evaluation = evaluation = self._metric.compute()
        self.history.stop("evaluation")
        if self.trainer.state.fn == TrainerFn.FITTING and not math.isfinite(evaluation["nll"]):
            self._loss_sum = evaluation["nll"]  # the last step broke the network
            self._check_loss()
        if self.trainer.sanity_checking:  # also when a run is resumed, and then not untrained
            self.history.untrained = self.history.untrained or evaluation["accuracy"]
        elif self.trainer.state.fn == TrainerFn.FITTING:
            self.history.record(evaluation)
            matrix = self.history.accuracy
            self._log(
                {f"accuracy/experience_{j + 1}": a for j, a in enumerate(matrix[-1])}
                | {"average_accuracy": measures.average_accuracy(matrix), "forgetting": measures.forgetting(matrix)}
                | {"average_accuracy_seen": measures.average_seen_accuracy(matrix)}
                | {"nll": self.history.nll, "ece": self.history.ece}
            )

    on_test_start = on_validation_start
    test_step = validation_step

    def on_test_end(self) -> None:
        self.latest_evaluation = self._metric.compute()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns ``probabilities`` (B, C) and labels ``y`` (B,)."""
        x, y, t = batch
        return {"probabilities": self.probabilities(x, t), "y": y}

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["bayesdual"] = {
            "algorithm": self.algorithm.state_dict(),
            "history": self.history.state_dict(),
            "random_state": random_state(),
            "within_epoch": self._within_epoch,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores what is not weights or optimizer state.

        Raises:
            ValueError: The checkpoint is of another network or memory, was not made by a ``Learner``, or cannot be
                gone on from.
        """
        state = checkpoint.get("bayesdual")
        if state is None:
            raise ValueError("the checkpoint was not made by bayesdual: give one from the checkpoints/ of a run.")
        if state.get("within_epoch", False) and self.trainer.state.fn == TrainerFn.FITTING:
            raise ValueError(
                "the checkpoint was written in the middle of an epoch, which a stream cannot go on from: give one that "
                "StreamCheckpoint wrote (last.ckpt, experience_K.ckpt)."
            )
        ours = {name: tuple(v.shape) for name, v in self.state_dict().items()}
        theirs = {name: tuple(v.shape) for name, v in checkpoint["state_dict"].items()}
        different = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        if different:
            n = different[0]
            raise ValueError(
                f"the checkpoint is of another model: {n} has shape {theirs.get(n)} there and {ours.get(n)} in "
                "model.network; give the configuration that the checkpoint was made with."
            )
        if self._uses_ivons and self.trainer.state.fn != TrainerFn.FITTING:
            self._learned = Posterior.in_checkpoint(checkpoint, self.network)
        self.algorithm.load_state_dict(state["algorithm"])
        self.history.load_state_dict(state["history"])
        self._random_state = state["random_state"]

    def _log(self, values: dict[str, Any]) -> None:
        """Writes scalars at the global step: one axis for the whole stream."""
        for logger in self.trainer.loggers:
            logger.log_metrics({k: float(v) for k, v in values.items()}, self.trainer.global_step)

    def _check_posterior(self, data: Any) -> None:
        """Refuses at the start what predictions by the posterior would fail on when the first experience ends."""
        memory = self.algorithm.memory
        if not memory.budget and memory.max_bytes is None:
            raise ValueError(
                "model.prediction needs the posterior of all data, which is measured on the memory: give a memory_size "
                "above 0, or model.prediction mean."
            )
        with evaluating(self.network):
            check_last_layer(self.network, self, data.inputs(torch.arange(1)), data.tasks[:1])

    def _count_logits(self, data: Any) -> int:
        x = data.inputs(torch.arange(1))
        try:
            with torch.no_grad(), evaluating(self.network):
                logits = self(x, data.tasks[:1])
        except RuntimeError as error:
            bytes_as_they_are = x.dtype == torch.uint8 and not self._mean
            hint = (
                "; they are uint8 as they are: give the mean and std that normalise them (TensorData), or a transform "
                "that makes floats of them"
            )
            raise ValueError(
                f"model.network does not take the inputs of data.benchmark, of shape {tuple(x.shape[1:])} "
                f"({error}){hint if bytes_as_they_are else ''}."
            ) from error
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise ValueError(
                f"model.network returns {type(logits).__name__} for one input, not logits of shape (1, classes): give "
                "a network that does, such as one that returns the .logits of yours."
            )
        return logits.shape[1]


def _arrange(trainer: Any, stream: StreamDataModule) -> None:
    """Makes one ``fit`` of the trainer cover the stream: evaluation and loaders follow the experiences.

    Args:
        trainer: Lightning's, which sets most of these attributes in ways that type checkers do not see.
        stream: What is learned.

    Raises:
        ValueError: The trainer is to stop before the first epoch.
    """
    wanted = trainer.fit_loop.max_epochs
    save_at_epoch_ends(trainer)
    if wanted == 0:
        raise ValueError("trainer.max_epochs is 0: leave it out to learn the whole stream, or give at least 1.")
    total = stream.n_experiences * stream.epochs
    trainer.fit_loop.max_epochs = total if wanted in (None, -1) else min(wanted, total)
    trainer.check_val_every_n_epoch = stream.epochs
    trainer.reload_dataloaders_every_n_epochs = 1  # each epoch's loader is built from the stream's state
    trainer.num_sanity_val_steps = float("inf")  # evaluates the untrained network, for forward transfer
