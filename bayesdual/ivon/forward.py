"""IVON in loops that know nothing of samples: whatever a model computes for training, it computes at a sample.

    forward pass in train mode, with gradients    opens the sample of the coming step, or stays in it
    forward pass in eval mode                     is at the mean
    state_dict() of the model                     is of the mean
    optimizer.step()                              ends the sample, as always

Between a forward pass and the step the sample stays in the parameters, so that gradients may be accumulated, scaled,
clipped and averaged over processes by anybody. Hugging Face's Trainer, accelerate and plain loops need no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import nn

from bayesdual.ivon.optimizer import IVON
from bayesdual.ivon.samples import State


def _nothing() -> None:
    return None


class ForwardSamples:
    """Hooks of a model; see :func:`sample_in_forward`. Those of a copy of the model do nothing."""

    _model: Callable[[], nn.Module | None] = staticmethod(_nothing)
    _optimizer: Callable[[], IVON | None] = staticmethod(_nothing)  # a model outlives its optimizers

    def __init__(self, model: nn.Module, optimizer: IVON) -> None:
        self._model, self._optimizer = ref(model), ref(optimizer)
        self._handles = [
            model.register_forward_pre_hook(self._before_forward, prepend=True),  # before parameters are gathered
            model.register_state_dict_pre_hook(self._before_saving),
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a copy of the model is none of the optimizer's

    def remove(self) -> None:
        """Puts the mean back, and leaves the model as it was."""
        self._restore_mean()
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> ForwardSamples:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def _before_forward(self, model: nn.Module, args: Any) -> None:
        optimizer = self._optimizer()
        if optimizer is None or model is not self._model():
            return
        if not model.training:
            self._restore_mean()
        elif torch.is_grad_enabled() and not optimizer._samples.held:
            optimizer.open_sample()

    def _before_saving(self, model: nn.Module, *args: Any) -> None:
        if model is self._model():
            self._restore_mean()

    def _restore_mean(self) -> None:
        optimizer = self._optimizer()
        if optimizer is not None and optimizer._samples.state is State.TRAINING:
            optimizer.restore_mean()


def sample_in_forward(model: nn.Module, optimizer: IVON) -> ForwardSamples:
    """Lets every forward pass of a model that trains be at the sample of the coming step.

    For loops that are ``loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()`` and cannot be changed,
    such as those of Hugging Face's ``Trainer`` and ``accelerate``. Passes in eval mode and the model's ``state_dict()``
    are of the mean; the parameters themselves hold the sample from a forward pass until the step.

    Args:
        model: What the loop calls, before or after it is wrapped by DistributedDataParallel; a model for
            ``torch.compile`` after that.
        optimizer: The optimizer of its parameters, with ``mc_samples=1``.

    Returns:
        A handle: ``remove()``, or the end of a ``with``, puts the mean back and takes the hooks off.

    Raises:
        ValueError: The optimizer makes several samples a step, and such loops have one forward pass.
    """
    if optimizer.mc_samples != 1:
        raise ValueError(
            f"IVON has mc_samples={optimizer.mc_samples}, but a loop that knows nothing of samples computes one loss a "
            "step: give mc_samples=1."
        )
    return ForwardSamples(model, optimizer)
