"""IVON in Hugging Face's ``Trainer``, and predictions of it averaged over samples of the posterior.

The Trainer makes the optimizer: ``Trainer(..., optimizer_cls_and_kwargs=(IVON, {"lr": 0.1, "ess": len(train_set)}),
callbacks=[IVONCallback()])``. Accumulation, clipping, mixed precision, checkpoints and resuming are the Trainer's own;
``TrainingArguments(weight_decay=...)`` takes the place of IVON's.
"""

# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# (where transformers is not installed, pyright takes this file for it)
from __future__ import annotations

import warnings
from collections.abc import Callable, Sized
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bayesdual.ivon import IVON, sample_in_forward


class IVONCallback(TrainerCallback):
    """Lets the model train at samples, by :func:`bayesdual.ivon.sample_in_forward`, while ``Trainer.train`` runs.

    Where training is left by an exception, evaluations and saved models are at the mean all the same; the parameters
    themselves are after ``remove()``.
    """

    def __init__(self) -> None:
        self._remove: Callable[[], None] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Puts the hooks on; warns if ess is 10 times off the number of examples.

        Raises:
            ValueError: The optimizer is not IVON, or makes several samples a step.
        """
        self.remove()
        optimizer = inner_optimizer(kwargs["optimizer"])
        data = getattr(kwargs.get("train_dataloader"), "dataset", None)
        n, ess = len(data) if isinstance(data, Sized) else 0, optimizer.param_groups[0]["ess"]
        if n and not n / 10 <= ess <= n * 10:
            warnings.warn(
                f"IVON's ess is {ess:g}, but there are {n} training examples: ess is usually their number.",
                stacklevel=2,
            )
        self._remove = sample_in_forward(kwargs["model"], optimizer).remove

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Puts the mean back, and takes the hooks off the model."""
        if self._remove is not None:
            self._remove()
        self._remove = None


def inner_optimizer(optimizer: Any) -> IVON:
    """IVON itself, out of what accelerate has wrapped around it.

    Raises:
        ValueError: It is another optimizer.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if not isinstance(inner, IVON):
        raise ValueError(
            f"the Trainer's optimizer is {type(inner).__name__}: give it "
            "optimizer_cls_and_kwargs=(bayesdual.IVON, {...})."
        )
    return inner


def predict_over_samples(trainer: Trainer, dataset: Any, samples: int = 16) -> np.ndarray:
    """Class probabilities of a classifier, averaged over samples of the posterior.

    Args:
        trainer: A Trainer with IVON, after ``train``.
        dataset: What ``trainer.predict`` takes, N examples.
        samples: How many samples are drawn.

    Returns:
        Shape (N, classes), or (N, ..., classes) where a model classifies tokens. Weights are at the mean again.

    Raises:
        ValueError: The optimizer is not IVON, or ``samples`` is less than 1.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}: give at least 1.")
    optimizer = inner_optimizer(trainer.optimizer)
    total: np.ndarray | None = None
    for _ in range(samples):
        with optimizer.sampled_params():
            logits = trainer.predict(dataset).predictions
        logits = logits[0] if isinstance(logits, tuple) else logits  # others are hidden states
        probabilities = torch.as_tensor(logits).double().softmax(-1).numpy()
        total = probabilities if total is None else total + probabilities
    assert total is not None
    return total / samples
