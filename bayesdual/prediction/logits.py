"""Logits of inputs as a stream gives them: normalised, and masked to the classes that a task can be."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bayesdual.memory import IMPOSSIBLE
from bayesdual.stream import Inputs, Parted


def takes_task_labels(network: nn.Module) -> bool:
    """Whether a network is told the task labels (Avalanche's multi-head modules are)."""
    return "task_labels" in inspect.signature(network.forward).parameters


def class_logits(
    network: nn.Module, x: Tensor, t: Tensor | None, inputs: Inputs | None, tasks: Tensor | None, told: bool
) -> Tensor:
    """Logits, shape (B, C).

    Args:
        network: What gives them.
        x: Inputs as the stream gives them, shape (B, ...): uint8 images are normalised here, parts taken apart.
        t: Task labels, shape (B,); needed in a stream with task labels.
        inputs: How inputs are normalised; None: not at all.
        tasks: Which classes each task label can be, shape (tasks, C); None: all.
        told: Whether the network is told the task labels, and masks classes itself.
    """
    given = x if inputs is None else inputs.normalised(x)
    if told:
        return ask(network, given, task_labels=t)
    logits = ask(network, given)
    return logits if tasks is None else logits.masked_fill(~tasks[t], IMPOSSIBLE)


def ask(network: nn.Module, x: Tensor | Parted, **told: Any) -> Any:
    """What a network says of inputs: its logits, also where it returns them as ``logits`` among other things.

    The parts of an input are given by name, or by position, where the network's ``forward`` takes them so, and else as
    the one dict or tuple that they are.

    Args:
        network: The network.
        x: Inputs, shape (B, ...), or their parts.
        told: What else it is given, by name.
    """
    if isinstance(x, Tensor):
        return logits_of(network(x, *told.values()))
    args: tuple[Tensor, ...] = () if isinstance(x, dict) else x
    kwargs = {**x, **told} if isinstance(x, dict) else told
    try:
        inspect.signature(network.forward).bind(*args, **kwargs)
    except TypeError:
        return logits_of(network(x, **told))
    return logits_of(network(*args, **kwargs))


def logits_of(output: Any) -> Any:
    """The logits in what a network returns: its ``logits``, as an attribute or a key, or what it is."""
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)
