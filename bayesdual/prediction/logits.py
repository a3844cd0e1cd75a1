"""Logits of inputs as a stream gives them: normalised, and masked to the classes that a task can be."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from bayesdual.memory import IMPOSSIBLE
from bayesdual.stream import Inputs


def takes_task_labels(network: nn.Module) -> bool:
    """Whether a network is told the task labels (Avalanche's multi-head modules are)."""
    return "task_labels" in inspect.signature(network.forward).parameters


def class_logits(
    network: nn.Module, x: Tensor, t: Tensor | None, inputs: Inputs | None, tasks: Tensor | None, told: bool
) -> Tensor:
    """Logits, shape (B, C).

    Args:
        network: What gives them.
        x: Inputs as the stream gives them, shape (B, ...): uint8 images are normalised here.
        t: Task labels, shape (B,); needed in a stream with task labels.
        inputs: How inputs are normalised; None: not at all.
        tasks: Which classes each task label can be, shape (tasks, C); None: all.
        told: Whether the network is told the task labels, and masks classes itself.
    """
    x = x if inputs is None else inputs.normalised(x)
    if told:
        return network(x, t)
    logits = network(x)
    return logits if tasks is None else logits.masked_fill(~tasks[t], IMPOSSIBLE)
