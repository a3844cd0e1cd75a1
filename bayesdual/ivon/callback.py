"""What IVON needs from Lightning where a step is more than ``step(closure)``."""

from __future__ import annotations

import warnings
from collections.abc import Sized
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from torch.nn.parallel import DistributedDataParallel

from bayesdual.ivon.checks import warn_of_sum
from bayesdual.ivon.optimizer import IVON


class IVONCallback(Callback):
    """Opens IVON's sample for each batch, and closes it after, in automatic optimization.

    Lightning computes the gradients of ``accumulate_grad_batches`` and of ``precision="16-mixed"`` outside of
    ``optimizer.step``, so that IVON cannot draw its sample there; without this callback it refuses the step. With
    ``noise="independent"`` it also keeps DistributedDataParallel from averaging the gradients. It does no harm where
    it is not needed.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warns if ess is 10 times off the size of the training set."""
        dataset = getattr(trainer.train_dataloader, "dataset", None)
        n = len(dataset) if isinstance(dataset, Sized) else 0  # an IterableDataset need not know
        for optimizer in _ivons(trainer):
            ess = optimizer.param_groups[0]["ess"]
            if n and not n / 10 <= ess <= n * 10:
                warnings.warn(
                    f"IVON's ess is {ess:g}, but there are {n} training examples: ess is usually their number.",
                    stacklevel=2,
                )
            if optimizer.noise == "independent" and isinstance(trainer.model, DistributedDataParallel):
                trainer.model.register_comm_hook(None, noop_hook)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if pl_module.automatic_optimization:
            for optimizer in _ivons(trainer):
                optimizer.open_sample()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Warns in the first batch if the loss is a sum."""
        if trainer.global_step == 0 and pl_module.automatic_optimization and _ivons(trainer) and loss.grad_fn:
            warn_of_sum(loss.grad_fn.next_functions[0][0])  # Lightning has divided it by accumulate_grad_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        _restore_mean(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _restore_mean(trainer)  # an epoch can end before its batch does

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        _restore_mean(trainer)


def _restore_mean(trainer: Trainer) -> None:
    for optimizer in _ivons(trainer):
        optimizer.restore_mean()


def _ivons(trainer: Trainer) -> list[IVON]:
    return [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, IVON)]
