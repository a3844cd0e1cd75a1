"""The network and the optimizer before a stream is learned: they fit it, and grow where it brings new classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesdual.models import evaluating, widen
from bayesdual.posterior import watching_last_linear
from bayesdual.stream import ExperienceData, Inputs, Predict, classes_of, task_classes
from bayesdual.tensors import fits, grow


def count_logits(network: nn.Module, predict: Predict, data: ExperienceData, inputs: Inputs) -> int:
    """How many classes a network tells apart.

    Raises:
        ValueError: It does not take the data, or does not return logits.
    """
    x = data.inputs(torch.arange(1))
    try:
        with torch.no_grad(), evaluating(network):
            logits = predict(x, data.tasks[:1])
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        bytes_as_they_are = x.dtype == torch.uint8 and not inputs.mean
        hint = (
            "; they are uint8 as they are: give the mean and std that normalise them (TensorData), or a transform "
            "that makes floats of them"
        )
        raise ValueError(
            f"model.network does not take the inputs of data.benchmark, {inputs} "
            f"({error}){hint if bytes_as_they_are else ''}."
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ValueError(
            f"model.network returns {type(logits).__name__} for one input, not logits of shape (1, classes): give "
            "a network that returns them, or an object that has them as its logits."
        )
    return logits.shape[1]


def widen_for(network: nn.Module, predict: Predict, data: ExperienceData, n_classes: int) -> str:
    """Widens the head of a network for classes that are new, and returns the head's name.

    Raises:
        ValueError: Its logits are not the output of one linear layer.
    """
    with torch.no_grad(), evaluating(network), watching_last_linear(network) as last:
        logits = predict(data.inputs(torch.arange(1)), data.tasks[:1])
    if last.layer is None or last.name is None or not last.gives(logits):
        raise ValueError(
            f"data.benchmark brings classes up to {n_classes - 1}, but model.network tells {logits.shape[1]} apart, "
            "and its logits are not the output of one linear layer that could grow: begin with a network that has "
            "as many logits as there will be classes."
        )
    widen(last.layer, n_classes)
    return last.name


def refuse_other_network(ours: Mapping[str, Tensor], theirs: dict[str, Tensor], head: str | None) -> None:
    """Looks at the tensors of a checkpoint; those of a head that has been widened since get its new rows, in place.

    Args:
        ours: Tensors by name.
        theirs: The checkpoint's.
        head: The name of the layer that has been widened, if one has.

    Raises:
        ValueError: They are of another network.
    """
    for n in (f"{head}.weight", f"{head}.bias"):
        if n in ours and n in theirs and fits(theirs[n].shape, ours[n]):
            new = ours[n].detach().clone()
            new[: len(theirs[n])] = theirs[n]
            theirs[n] = new
    shapes = [{n: tuple(v.shape) for n, v in tensors.items()} for tensors in (ours, theirs)]
    different = sorted(n for n in ours.keys() | theirs.keys() if shapes[0].get(n) != shapes[1].get(n))
    if different:
        n = different[0]
        raise ValueError(
            f"the checkpoint is of another model: {n} has shape {shapes[1].get(n)} there and {shapes[0].get(n)} in "
            "model.network; give the configuration that the checkpoint was made with."
        )


def mask_of_tasks(known: Tensor | None, experiences: Sequence[Any], n_logits: int, after_others: bool) -> Tensor | None:
    """Which classes each task label can be, of what has been learned and of a stream; None without task labels.

    Args:
        known: That of what has been learned, shape (tasks, classes).
        experiences: Those of the stream.
        n_logits: Number of logits.
        after_others: Whether something has been learned before the stream.

    Returns:
        Booleans, shape (tasks, n_logits).

    Raises:
        ValueError: The stream has task labels after one that has none, or a task gets classes that it did not have.
    """
    if known is None and not after_others:
        return task_classes(experiences, n_logits)
    labels = [(int(task), e) for e in experiences for task in getattr(e, "task_labels", [0])]
    if known is None:
        if others := {task for task, _ in labels} - {0}:
            raise ValueError(
                f"data.benchmark has the task label {min(others)}, but what was learned before has no task labels: "
                "give it without."
            )
        return None
    rows = max(len(known), 1 + max(task for task, _ in labels))
    mask = grow(known, known.new_empty(rows, max(n_logits, known.shape[1])), False)
    for task, experience in labels:
        classes = classes_of(experience)
        had = known[task].nonzero().flatten().tolist() if task < len(known) else []
        if had and (new := set(classes).difference(had)):
            raise ValueError(
                f"data.benchmark has the class {min(new)} with the task label {task}, a task that was learned with "
                f"the classes {had}: give it a task label of its own."
            )
        mask[task, classes] = True
    return mask


def no_mask(experiences: Sequence[Any]) -> Tensor | None:
    """None: the mask of one output, which has no classes that task labels could tell apart.

    Raises:
        ValueError: There are several task labels.
    """
    if len({int(task) for e in experiences for task in getattr(e, "task_labels", [0])}) > 1:
        raise ValueError(
            "data.benchmark has task labels, and model.network has one output for all tasks: give a network that takes "
            "task_labels, with a head for each, or a benchmark without."
        )
    return None


def check_tasks(known: Tensor, experiences: Sequence[Any]) -> Tensor:
    """Which classes each task label can be, shape (tasks, classes), for a stream that is evaluated.

    Raises:
        ValueError: It has a task label that was not learned.
    """
    labels = {int(task) for e in experiences for task in getattr(e, "task_labels", [0])}
    if strange := labels.difference(known.any(1).nonzero().flatten().tolist()):
        raise ValueError(f"data.benchmark has the task label {min(strange)}, which has not been learned.")
    return known


def carry_over(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Gives an optimizer the state of the one before it, grown where parameters have grown since.

    IVON grows its own; what others keep of new entries begins at 0, as it does in a new optimizer.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    saved = [i for group in state["param_groups"] for i in group["params"]]
    grown = dict(state["state"])
    if not hasattr(optimizer, "precision"):
        for i, p in zip(saved, params, strict=False):  # torch complains of their number
            for name, value in grown.get(i, {}).items():
                if isinstance(value, Tensor) and value.dim() and value.shape != p.shape and fits(value.shape, p):
                    grown[i] = {**grown[i], name: grow(value.to(p), p, 0.0)}
    optimizer.load_state_dict({**state, "state": grown})
