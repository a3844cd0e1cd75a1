"""Merging as a strategy in Lightning: every experience learns an expert from the base, and leaves all merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from bayesdual.merging import Experts
from bayesdual.models import evaluating

if TYPE_CHECKING:
    from bayesdual.learner.learner import Learner


class MergeExperts(Callback):
    """Merges experts over the stream of a ``Learner``, as a callback of the trainer (``configs/methods/merging.yaml``).

    The first experience learns the base, and every other one an expert from it, by an optimizer without a past, and as
    the learner's algorithm has it: without a memory on its own data alone, with one by replay and K-prior. Evaluations
    are of what all experts so far come to, and so are the memory and the posterior.

    Args:
        method: A method of ``bayesdual.merging.merge``.
        options: What that method has besides.

    Attributes:
        experts: Those so far.
    """

    def __init__(self, method: str = "regmean", options: dict[str, Any] | None = None) -> None:
        self.experts = Experts(method, **(options or {}))

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuses several processes.

        Raises:
            ValueError: There are some.
        """
        if trainer.world_size > 1:
            raise ValueError("MergeExperts learns in one process: learn experts side by side, and merge their runs.")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Makes the network the base where an experience begins."""
        stream = pl_module.stream
        if stream.epoch == 0 and stream.batch == 0 and self.experts.base is not None:
            self.experts.begin(pl_module.network)
            for optimizer in trainer.optimizers:
                optimizer.state.clear()

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Merges before what was learned is evaluated."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._merge(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Merges where nothing is evaluated."""
        if pl_module.stream.last_epoch_of_experience:
            self._merge(pl_module)

    def _merge(self, learner: Learner) -> None:
        if len(self.experts.classes) > learner.stream.experience:
            return
        with torch.inference_mode(False), torch.no_grad(), evaluating(learner.network):
            self.experts.learned(learner.network, learner.stream.train_data(), learner.device)

    def memory_bytes(self) -> dict[str, int]:
        """Bytes that are carried to the next experience, by part."""
        return self.experts.memory_bytes()

    def state_dict(self) -> dict[str, Any]:
        return self.experts.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.experts.load_state_dict(state_dict)
