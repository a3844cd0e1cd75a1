"""The Lightning host: one LightningModule that learns a whole stream in a single ``Trainer.fit``."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
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
from bayesdual.files import refusing_other_content
from bayesdual.ivon import IVONByRule, IVONCallback
from bayesdual.learner.datamodule import StreamDataModule
from bayesdual.learner.fitting import Known, check_outputs, fitted
from bayesdual.learner.growth import carry_over, count_logits, refuse_other_network
from bayesdual.learner.history import History
from bayesdual.learner.position import batches_done, random_states, rest_as_an_epoch, set_random_state_of, share_done
from bayesdual.learner.processes import check_learned, check_start
from bayesdual.learner.start import arrange, check_saved, check_shared, take_place
from bayesdual.learner.supported import refuse_partial_evaluation, refuse_unsupported
from bayesdual.models import evaluating, of_network, widen_as_saved
from bayesdual.posterior import Posterior
from bayesdual.prediction import (
    Predicted,
    PredictionName,
    Seen,
    class_logits,
    drift_between,
    prediction_by,
    seen,
    some_of,
    takes_task_labels,
)
from bayesdual.random_state import random_state, set_random_state
from bayesdual.schedule import lower_learning_rate
from bayesdual.stream import Batch, ExperienceData, Inputs


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
        self.likelihood = algorithm.likelihood
        self.history = History(self.likelihood.score)
        self._by_mean = prediction_by("mean", likelihood=self.likelihood)
        self._prediction = prediction_by(prediction, samples, self.likelihood)
        self._uses_posterior = prediction in ("samples", "linearised")  # of all data, of the last layer
        self._uses_ivons = prediction == "weight_samples"
        self._ivons: Posterior | None = None  # its posterior, at the weights that are evaluated
        self._make_optimizer = IVONByRule() if optimizer is None else optimizer
        self._inputs: Inputs | None = None  # as they were learned
        self._learned: StreamDataModule | None = None  # the stream of the last fit
        self._optimizer_state: dict[str, Any] | None = None  # as the last fit, or the checkpoint, left it
        self.classes: tuple[str, ...] = ()  # names, by label, where the benchmark has any
        self.usual: Seen | None = None  # what the network makes of evaluated examples of what it has learned
        self._epochs_counted = 0  # by the trainer, in the checkpoint
        self.latest_evaluation: measures.Evaluation | measures.NumberEvaluation | None = None
        self._metric = self.likelihood.metric(0)  # of the evaluation under way
        self._takes_task_labels = takes_task_labels(network)
        self._random_state: list[dict[str, Any]] | dict[str, Any] | None = None
        self._random_state_before: dict[str, Any] = {}
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
        return class_logits(self.network, x, t, self._inputs, self.task_mask, self._takes_task_labels)

    def predicted(self, x: Tensor, t: Tensor) -> Predicted:
        """Class probabilities (or numbers) by the chosen prediction; until a stream is learned, by the mean.

        Raises:
            ValueError: The prediction needs a posterior that there is not.
        """
        predict = self._by_mean if self.trainer.sanity_checking else self._prediction
        posterior = self._ivons_posterior() if self._uses_ivons else self.algorithm.posterior
        return predict(self.network, self, posterior, x, t)

    def _ivons_posterior(self) -> Posterior | None:
        if self._ivons is None and self.trainer.state.fn == TrainerFn.FITTING:
            self._ivons = self.posterior()
        return self._ivons

    def configure_optimizers(self) -> Optimizer:
        params, make = self.network.parameters(), self._make_optimizer
        optimizer = make.make(params, *self._size()) if isinstance(make, IVONByRule) else make(params)
        if self._optimizer_state is not None:
            with refusing_other_content(self.trainer.ckpt_path or "what was learned", "Learner's checkpoint"):
                carry_over(optimizer, self._optimizer_state)
            self._optimizer_state = None
        return optimizer

    def _size(self) -> tuple[float, float]:
        """Examples and steps of an experience, in the mean over experiences."""
        stream, trainer = self.stream, self.trainer
        sizes = stream.describe()["sizes"]
        batch = stream.examples_of_a_batch * trainer.accumulate_grad_batches
        return statistics.mean(sizes), stream.epochs * statistics.mean(-(-size // batch) for size in sizes)

    def configure_callbacks(self) -> list[Callback]:
        """IVON has to be told of batches where Lightning computes gradients outside of the optimizer's step.

        It is also the last that Lightning asks for before it begins processes, which it then seeds anew.
        """
        self._random_state_before = random_state()
        outside = self.trainer.accumulate_grad_batches > 1 or self.trainer.precision == "16-mixed"
        return [IVONCallback()] if outside else []

    def setup(self, stage: str) -> None:
        stream, fitting = self.stream, stage == "fit"
        stream.of_targets(self.likelihood)
        if fitting and self.trainer.world_size > 1:  # go on from where generators stood, as one process does
            pythons = {"python": random_state()["python"]}  # which begins anew in every process that is forked
            set_random_state(self._random_state_before | pythons)
        self._epochs_counted = 0
        if fitting:
            refuse_unsupported(self.trainer, self.network)
            check_shared(stream, self.trainer.world_size)
            take_place(stream, self._learned)
            if self._learned is None and self.algorithm.memory.counts and not stream.awaits_checkpoint:
                raise ValueError("this algorithm has learned a stream already: make a new one for each Learner.")
        else:
            refuse_partial_evaluation(self.trainer, stage)
        for module in self.network.modules():  # Avalanche's growing heads: grown before the optimizer is made
            if hasattr(module, "adaptation"):
                for experience in stream.stream("train"):
                    cast(Any, module).adaptation(experience)
        if not hasattr(self, "task_mask"):
            self.register_buffer("task_mask", None)
        if not (fitting and stream.awaits_checkpoint):
            learned = self._learned is not None
            self._prepare(self._inputs if learned else None, self.task_mask if learned else None, fitting)

    def _prepare(self, learned: Inputs | None, tasks: Tensor | None, fitting: bool) -> str | None:
        """Sees that network and stream fit each other and what was learned, and widens the head where classes are new.

        Args:
            learned: What the inputs that were learned are like, if any were.
            tasks: Which classes the tasks that were learned can be, shape (tasks, classes).
            fitting: Whether the stream is to be learned.

        Returns:
            The name of the head, if it has been widened.
        """
        known, head = fitted(
            self.network,
            self.algorithm,
            self.stream,
            Known(learned, self.classes if learned is not None else (), tasks),
            by_posterior=self._uses_posterior,
            fitting=fitting,
        )
        self._inputs, self.classes, self.task_mask = known
        return head

    # -- training

    def on_fit_start(self) -> None:
        if self.stream.awaits_checkpoint:
            raise ValueError(
                "StreamDataModule.after says that this stream comes after what a checkpoint has learned: give "
                "Trainer.fit its ckpt_path."
            )
        if self._uses_ivons and self.posterior() is None:
            raise ValueError(
                "model.prediction is weight_samples, which needs the posterior that IVON learns: give model.optimizer "
                "bayesdual.ivon.IVONByRule, or model.prediction mean."
            )
        if self.trainer.world_size > 1:
            check_start(self.stream)
        self._learned = self.stream
        self.likelihood.look_at(self.stream.train_data().y)
        arrange(self.trainer, self.stream, self._epochs_counted)
        self.history.start("total")
        self._agree()

    def on_train_start(self) -> None:
        if self._random_state is not None:
            set_random_state_of(self.global_rank, self._random_state)
            self._random_state = None

    def on_train_epoch_start(self) -> None:
        self._within_epoch = True
        self._loss_sum = 0.0
        self.trainer.check_val_every_n_epoch = 1 if self.stream.last_epoch_of_experience else sys.maxsize
        self.algorithm.begin_experience(
            self.stream.train_data(),
            self.device,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.stream.batches_of_a_step,
        )
        self._ivons = None
        if self.stream.epoch == 0 and self.stream.batch == 0:
            with self.history.timing("evaluation"):
                self._look_for_drift()

    def _look_for_drift(self) -> None:
        """Compares an experience that is about to be learned with the one before."""
        stream, before = self.stream, self.stream.evaluated_before()
        now = stream.train_data()
        if before is None or min(len(before), len(now)) < 2:
            return
        generator = torch.Generator().manual_seed(stream.experience)
        seen_before, seen_now = (self._seen([data], generator) for data in (before, now))
        found = {"experience": stream.experience + 1, **drift_between(seen_before, seen_now, generator)}
        self.history.drift.append(found)
        self._log({f"drift/{key}": value for key, value in found.items() if key != "experience"})

    def _seen(self, data: Sequence[ExperienceData], generator: torch.Generator) -> Seen:
        """What the network makes of some examples."""
        x, y, t = (part.to(self.device) for part in some_of(data, generator))
        return seen(self.network, self, self.likelihood, x, y, t)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        done = (self.stream.epoch + share_done(self.trainer, self.stream, batch_idx)) / self.stream.epochs
        lower_learning_rate(self._optimizer(), self.lr_end, done)

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        try:
            loss, parts = self.algorithm.loss(self.network, self, *batch, self.stream.weights(batch_idx))
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
                if self.trainer.world_size > 1:
                    check_learned(self.network, self.algorithm, self.posterior())
            with self.history.timing("evaluation"):
                evaluated = self.stream.evaluated_so_far()
                self.usual = self._seen(evaluated, torch.Generator().manual_seed(self.stream.experience))
            memory = self.algorithm.memory
            self._log({"memory/exemplars": len(memory), "memory/examples_seen": memory.examples_seen})
        self.stream.advance()
        self._within_epoch = False

    def on_train_end(self) -> None:
        self.history.stop("total")

    def on_fit_end(self) -> None:
        """Keeps what another fit goes on with."""
        self._optimizer_state = self._optimizer().state_dict()
        self._random_state = self._random_state or random_state()  # a run that was finished already drew nothing

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
        if trainer.state.fn != TrainerFn.FITTING:
            self.on_predict_start()
        if self._uses_posterior and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            with self.history.timing("memory"), torch.inference_mode(False), evaluating(self.network):
                self.algorithm.measure_posterior(
                    self.network, self, self.stream.train_data(), self.stream.experience, self.posterior(), self.device
                )
        elif trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            with evaluating(self.network):
                self.algorithm.measure_noise(self, self.stream.train_data(), self.stream.experience, self.device)
        self.history.start("evaluation")
        stream, fitting = self.stream, trainer.state.fn == TrainerFn.FITTING
        learned = stream.experience if fitting else max(stream.experience, len(self.history.accuracy)) - 1
        told_apart = None if stream.evaluated_in_common else learned  # old experiences, new and unseen ones
        self._metric = self.likelihood.metric(stream.n_experiences, told_apart).to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor | None]:
        """Measures, and returns what :meth:`predict_step` does, for callbacks."""
        x, y, t = batch
        p, epistemic = self.predicted(x, t)
        self._metric.update(p, y, self.stream.evaluated[dataloader_idx], epistemic)
        return self._answered(p, epistemic, y)

    def on_validation_end(self) -> None:
        self.latest_evaluation = evaluation = self._metric.compute()
        self.history.stop("evaluation")
        if self.trainer.state.fn == TrainerFn.FITTING and not math.isfinite(evaluation["nll"]):
            self._loss_sum = evaluation["nll"]  # the last step broke the network
            self._check_loss()
        if self.trainer.sanity_checking:  # also when a run is resumed, and then not untrained
            self.history.untrained = self.history.untrained or measures.scores_of(evaluation)
        elif self.trainer.state.fn == TrainerFn.FITTING:
            self.history.record(evaluation)
            self._log(self.history.scalars())

    on_test_start = on_validation_start
    test_step = validation_step

    def on_test_end(self) -> None:
        self.latest_evaluation = self._metric.compute()

    def on_predict_start(self) -> None:
        sample = self.stream.evaluation_data("test")[0]
        check_outputs(self.stream, count_logits(self.network, self, sample, Inputs.of(sample)))

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor | None]:
        """Returns ``probabilities`` (B, C), labels ``y`` (B,) and, by a posterior, ``epistemic`` entropy (B,).

        Where targets are numbers, ``mean`` (B, 1) stands in place of the first.
        """
        x, y, t = batch
        return self._answered(*self.predicted(x, t), y)

    def _answered(self, p: Tensor, epistemic: Tensor | None, y: Tensor) -> dict[str, Tensor | None]:
        if not self.likelihood.has_classes:
            return {"mean": p, "y": y}
        return {"probabilities": p, "epistemic": epistemic, "y": y}

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._within_epoch:
            self._check_loss()  # else a checkpoint of what is broken would take the place of one that is not
        checkpoint["bayesdual"] = {
            "algorithm": self.algorithm.state_dict(),
            "history": self.history.state_dict(),
            "random_state": random_states(self.trainer),
            "inputs": None if self._inputs is None else self._inputs.state_dict(),
            "classes": list(self.classes),
            "usual": None if self.usual is None else self.usual.state_dict(),
            "within_epoch": self._within_epoch,
            "batches": batches_done(self.trainer, self.stream) if self._within_epoch else 0,
            "batch": self.stream.examples_of_a_batch,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores what is not weights.

        Raises:
            ValueError: The checkpoint is damaged, of another network, memory or stream, was not made by a ``Learner``,
                or cannot be gone on from.
        """
        check_saved(checkpoint, self.trainer, self.stream)
        with refusing_other_content(self.trainer.ckpt_path or "what is gone on from", "Learner's checkpoint"):
            self._restore(checkpoint)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        stream, tensors, fitting = self.stream, checkpoint["state_dict"], self.trainer.state.fn == TrainerFn.FITTING
        state = checkpoint["bayesdual"]
        stream.load_state_dict(checkpoint[type(stream).__qualname__])
        stream.batch = state.get("batches") or 0
        widen_as_saved(self.network, of_network(tensors))
        inputs, tasks = state.get("inputs"), tensors.get("task_mask")
        self.classes = tuple(state.get("classes", ()))
        self.usual = Seen.from_state_dict(state.get("usual"))
        widened = self._prepare(None if inputs is None else Inputs.from_state_dict(inputs), tasks, fitting)
        if tasks is not None and self.task_mask is not None:
            tensors["task_mask"] = self.task_mask  # which holds what was known
        refuse_other_network(self.state_dict(), tensors, widened and f"network.{widened}")
        if self._uses_ivons and not fitting:
            self._ivons = Posterior.in_checkpoint(checkpoint, self.network)
        self.algorithm.load_state_dict(state["algorithm"])
        self.history.load_state_dict(state["history"])
        if self.history.score != self.likelihood.score:
            raise ValueError(
                f"the checkpoint measured {self.history.score.name}, and algorithm.likelihood's score is "
                f"{self.likelihood.score.name}: give the same."
            )
        self._random_state = state["random_state"]
        if fitting and checkpoint.get("optimizer_states"):
            if state.get("within_epoch", False) is True:
                rest_as_an_epoch(checkpoint["loops"]["fit_loop"])
            self._epochs_counted = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            self._optimizer_state = checkpoint["optimizer_states"][0]
            checkpoint["optimizer_states"] = []  # loaded by us, when the optimizer is made

    def _log(self, values: dict[str, Any]) -> None:
        """Writes scalars at the global step: one axis for the whole stream."""
        for logger in self.trainer.loggers:
            logger.log_metrics({k: float(v) for k, v in values.items()}, self.trainer.global_step)
