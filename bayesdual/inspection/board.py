"""What TensorBoard shows of a stream: figures and histograms after each experience, and scalars by experience.

Scalars of the learner have the global step as their axis, and so have these figures, whose slider goes through the
experiences. ``by_experience/...`` counts experiences instead, so that runs of different length line up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from bayesdual.inspection.figures import Picture
from bayesdual.inspection.gap import measure
from bayesdual.inspection.loggers import Taker, left_out, others, taker_of
from bayesdual.inspection.projector import project
from bayesdual.inspection.standing import Standing, by_experience, pictures_of
from bayesdual.learner import Learner
from bayesdual.posterior import Posterior

VALUES = 10_000  # of a layer's standard deviations, of which a histogram is made


def layout(learner: Learner) -> dict[str, Any]:
    """The custom scalars."""
    score = learner.history.score
    sure = {"NLL of old, new and unseen experiences": ["Multiline", ["nll/.*"]]}
    if learner.likelihood.has_classes:
        sure["entropy of old, new and unseen experiences"] = ["Multiline", ["entropy/.*"]]
    return {
        "forgetting": {
            f"{score.name} of each experience": ["Multiline", [f"{score.key}/experience_.*"]],
            "of those seen, and forgetting": ["Multiline", [f"average_{score.key}_seen", "forgetting"]],
            "stability and plasticity": ["Multiline", [f"by_experience/{score.key}_of_the_(old|new)"]],
        },
        "how sure it is": sure,
        "what is minimised": {"parts of the loss": ["Multiline", ["loss/.*"]]},
    }


class StreamBoard(Callback):
    """Shows a stream in TensorBoard while it is learned, and to other loggers what these take, which it says.

    Args:
        share: Share of the time of training that figures may take: where they would take more, those of some
            experiences are left out, and a text says of which. The last experience's are always there.
        projector: Whether the projector gets what goes into the last layer, of exemplars and of test examples, at the
            end.
        old_every_n_steps: After how many steps of an experience the old ones are evaluated again, on at most 1,000
            examples, to see the stability gap; None: they are not. It is also in ``results.json``, whatever the logger.

    Raises:
        ValueError: ``share`` is negative, or ``old_every_n_steps`` below 1; when fitting: targets are no classes.
    """

    def __init__(self, share: float = 0.1, projector: bool = True, old_every_n_steps: int | None = None) -> None:
        if share < 0:
            raise ValueError(f"board.share is {share}: it is a share of the time, 0 or more.")
        if old_every_n_steps is not None and old_every_n_steps < 1:
            raise ValueError(f"board.old_every_n_steps is {old_every_n_steps}: give 1 or more, or leave it out.")
        self.share = share
        self.projector = projector
        self.old_every_n_steps = old_every_n_steps
        self.left_out: list[int] = []
        self._pictures: dict[str, Picture] = {}
        self._pictured = 0  # experiences that had been learned when they were drawn
        self._spent = self._began = 0.0
        self._evaluated = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.old_every_n_steps is not None and not shown_learner(pl_module).likelihood.has_classes:
            raise ValueError("board.old_every_n_steps measures accuracy, and the targets are numbers: leave it out.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        learner = shown_learner(pl_module)
        for writer in _writers(trainer):
            writer.add_custom_scalars(layout(learner))
        for logger in others(trainer):
            logger.log_hyperparams(hyperparameters(learner))
            bar = trainer.progress_bar_callback
            (print if bar is None else bar.print)(f"note: {left_out(logger)}")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        stream = shown_learner(pl_module).stream
        if batch_idx == stream.epoch == stream.batch == 0:
            self._look_at_old(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        if self.old_every_n_steps and trainer.global_step % self.old_every_n_steps == 0:
            self._look_at_old(trainer, pl_module)

    def _look_at_old(self, trainer: Trainer, pl_module: LightningModule) -> None:
        learner = shown_learner(pl_module)
        if self.old_every_n_steps is None or (old := measure(learner, trainer.global_step)) is None:
            return
        for logger in trainer.loggers:
            logger.log_metrics({"accuracy_on_old": old}, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluated = not trainer.sanity_checking

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._evaluated:  # the memory holds what was learned only now
            self._evaluated, learner = False, shown_learner(pl_module)
            with learner.history.timing("evaluation"):
                self._write(trainer, learner, last=False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._evaluated:
            self._write(trainer, shown_learner(pl_module), last=True)

    def pictures(self, learner: Learner) -> dict[str, Picture]:
        """All figures of where a stream stands as pictures, by their tags, drawn once after each experience."""
        if self._pictured != (learned := len(learner.history.accuracy)):
            self._pictures = pictures_of(Standing.of(learner))
            self._pictured = learned
        return self._pictures

    def _write(self, trainer: Trainer, learner: Learner, last: bool) -> None:
        """Gives every logger what there is to see after an experience."""
        started, number = time.perf_counter(), len(learner.history.accuracy)
        step, writers, loggers = trainer.global_step, _writers(trainer), others(trainer)
        takers = [taker for logger in loggers if (taker := taker_of(logger))]
        scalars = {f"by_experience/{name}": value for name, value in by_experience(Standing.of(learner)).items()}
        for writer in writers:
            for name, value in scalars.items():
                writer.add_scalar(name, value, number)
        for logger in loggers:
            logger.log_metrics({**scalars, "experiences_learned": number}, step)
        if last or self._spent <= self.share * (started - self._began):
            self._show(writers, takers, learner, step)
            self._spent += time.perf_counter() - started
        elif writers or takers:
            self.left_out.append(number)
        if last:
            for writer in writers:
                self._end(writer, learner, step)
            for logger in loggers:
                logger.log_metrics(final_measures(learner), step)

    def _show(self, writers: list[SummaryWriter], takers: list[Taker], learner: Learner, step: int) -> None:
        if not (writers or takers):
            return
        for tag, pixels in self.pictures(learner).items():
            for writer in writers:
                writer.add_image(tag, pixels, step, dataformats="HWC")
            for take in takers:
                take(tag, pixels, step)
        for writer in writers:
            for name, values in deviations(learner.algorithm.posterior):
                writer.add_histogram(f"posterior/{name}", values, step)

    def _end(self, writer: SummaryWriter, learner: Learner, step: int) -> None:
        writer.add_hparams(hyperparameters(learner), final_measures(learner), run_name=".")
        if self.projector:
            project(writer, learner, step)
        if self.left_out:
            writer.add_text("figures left out", self._excuse(), step)

    def _excuse(self) -> str:
        numbers = ", ".join(map(str, self.left_out))
        return (
            f"After experiences {numbers} there are no figures, which would have taken more than {self.share:g} of the "
            "time: --board.share 1 draws all."
        )


def deviations(posterior: Posterior | None) -> Iterator[tuple[str, Tensor]]:
    """Standard deviations of the posterior, of at most ``VALUES`` parameters of each layer, evenly spread."""
    for name, precision in ({} if posterior is None else posterior.precision).items():
        flat = precision.flatten()
        yield name, flat[:: -(-len(flat) // VALUES)].float().rsqrt()


def hyperparameters(learner: Learner) -> dict[str, Any]:
    """What tells runs apart, as plain values."""
    algorithm, stream = learner.algorithm, learner.stream
    return {
        "network": type(learner.network).__name__,
        "parameters": sum(p.numel() for p in learner.network.parameters()),
        "experiences": stream.n_experiences,
        "epochs": stream.epochs,
        "batch_size": stream.examples_of_a_batch,
        "memory_budget": algorithm.memory.budget,
        "memory_bytes": algorithm.memory.max_bytes or 0,
        "replay_batch_size": algorithm.replay_batch_size,
        "label_share": algorithm.label_share,
        "temperature": algorithm.temperature,
        "spread": algorithm.spread,
        "selection": getattr(algorithm.selection, "__name__", type(algorithm.selection).__name__),
        "likelihood": learner.likelihood.name,
        "weight_prior": "none" if algorithm.weight_prior is None else type(algorithm.weight_prior).__name__,
        "seed": torch.initial_seed(),
    }


def final_measures(learner: Learner) -> dict[str, float]:
    """The measures that runs are compared by, where the parallel coordinates of TensorBoard look for them."""
    results = learner.history.results()
    names = (f"average_{learner.history.score.key}", "forgetting", "backward_transfer", "nll", "ece", "seconds_total")
    return {f"final/{name}": results[name] for name in names if name in results}


def shown_learner(module: LightningModule) -> Learner:
    """The learner that a callback shows.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(module, Learner):
        raise TypeError(f"this callback shows a bayesdual.Learner, not a {type(module).__name__}: leave it out.")
    return module


def _writers(trainer: Trainer) -> list[SummaryWriter]:
    """What writes to TensorBoard: nothing but in the first process."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
