"""Merging as a strategy on Avalanche: every experience learns an expert from the base, and leaves all of them merged.

The plugin stands beside any other: with Avalanche's ``ReplayPlugin``, experts are trained with replay; with a
``BayesDualPlugin`` by Bayes-duality.
"""

from __future__ import annotations

from typing import Any

import torch
from avalanche.distributed import DistributedHelper
from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from bayesdual.merging import Experts, refit_last_layer
from bayesdual.models import evaluating
from bayesdual.stream import experience_data


class MergingPlugin(SupervisedPlugin, supports_distributed=False):  # type: ignore[call-arg]
    """Merges experts over a stream::

        Naive(model=model, optimizer=..., plugins=[MergingPlugin(Experts("regmean"))], ...)

    The first experience learns the base, and every other one an expert from it; after each, the model is what all
    experts so far come to.

    Args:
        experts: How they are merged.
        storage_policy: A memory of examples, such as Avalanche's ``ClassBalancedBuffer``, on which the last layer is
            fitted again after each merge; None: it stays as merged. It is updated here.
        pull: How strongly the layer is then held where it was.

    Raises:
        ValueError: ``pull`` is not positive.
    """

    def __init__(self, experts: Experts, storage_policy: ExemplarsBuffer | None = None, pull: float = 0.03) -> None:
        super().__init__()
        if not pull > 0:
            raise ValueError(f"pull is {pull}: give a positive number.")
        self.experts = experts
        self.storage_policy = storage_policy
        self.pull = pull

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Makes the model the base.

        Raises:
            ValueError: There are several processes, or the model has grown since the base was learned.
        """
        if DistributedHelper.world_size > 1:
            raise ValueError("merging learns in one process: learn experts side by side, and merge them by `merge`.")
        try:
            self.experts.begin(strategy.model)
        except RuntimeError:
            raise ValueError(
                "the model has other parameters than the base that experts are merged from, as a head that grows: give "
                "it all classes at the start."
            ) from None

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Takes in the expert, and makes the model what all come to together."""
        model = strategy.model
        with evaluating(model):
            self.experts.learned(model, experience_data(strategy.experience), strategy.device)
            if self.storage_policy is not None:
                self.storage_policy.post_adapt(strategy, strategy.experience)
                refit_last_layer(model, *_examples(self.storage_policy.buffer, strategy.device), self.pull)

    def memory_bytes(self) -> dict[str, int]:
        """Bytes that are carried to the next experience beside the memory, by part."""
        return self.experts.memory_bytes()


def _examples(buffer: Any, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Inputs, as the model takes them, and labels of a buffer."""
    rows = [buffer[i] for i in range(len(buffer))]
    return torch.stack([row[0] for row in rows]).to(device), torch.tensor([int(row[1]) for row in rows]).to(device)
