"""Merged experts as baselines of a comparison, by their dotted names.

They stand by themselves, since results of a baseline count as another code's when a module that it needs has changed,
and these need more of ours than any other does.
"""

from __future__ import annotations

import avalanche.training as training
from avalanche.training.storage_policy import ClassBalancedBuffer
from avalanche.training.templates import SupervisedTemplate

from bayesdual.merging import Experts
from bayesdual.strategies.baselines.methods import Common
from bayesdual.strategies.merging import MergingPlugin


def merged_experts(common: Common, epochs: int, method: str = "regmean") -> SupervisedTemplate:
    """An expert for each experience, trained from the first's, and all merged (``bayesdual/merging/experts.py``)."""
    return training.Naive(**common, train_epochs=epochs, plugins=[MergingPlugin(Experts(method))])


def merged_experts_with_memory(
    common: Common, epochs: int, memory_size: int, method: str = "regmean", pull: float = 0.03
) -> SupervisedTemplate:
    """The same, with the last layer fitted again on a memory after each merge, held by ``pull``."""
    plugin = MergingPlugin(Experts(method), ClassBalancedBuffer(memory_size), pull)
    return training.Naive(**common, train_epochs=epochs, plugins=[plugin])
