"""What data have to be before they are learned from: a class for each example, and inputs that are finite tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bayesdual.random_state import kept_random_state
from bayesdual.stream.parts import Parts


def class_numbers(labels: Any, name: str) -> Tensor:
    """Labels as classes.

    Args:
        labels: One for each example: a tensor, an array or a sequence.
        name: What they are of, for an error.

    Returns:
        Shape (N,), int64.

    Raises:
        ValueError: They are text, numbers with a fraction, or several for each example; the sentence says what to give.
    """
    given = labels if hasattr(labels, "shape") else list(labels)
    try:
        stacks = len(given) > 0 and hasattr(given[0], "shape") and not hasattr(given, "shape")
        tensor = torch.stack([*map(torch.as_tensor, given)]) if stacks else torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(given[0], str):
            raise ValueError(
                f"the labels of {name} are text, such as {str(given[0])!r:.40}: number the classes 0, 1, and so on, "
                "for example by a target transform."
            ) from None
        raise ValueError(f"the labels of {name} are not one whole number for each example ({error}).") from None
    if tensor.dim() != 1:
        shape = ", ".join(["N", *map(str, tensor.shape[1:])])
        how = "targets.squeeze(1)" if tensor[:1].numel() == 1 else "targets.argmax(1) if they are one-hot"
        raise ValueError(
            f"the labels of {name} have shape ({shape}): give one whole number for each example, {how}; several "
            "classes of one example (multi-label) are not supported."
        )
    if len(tensor) and (tensor.is_floating_point() or tensor.is_complex()):
        raise ValueError(
            f"the labels of {name} are floats, such as {tensor[0].item():.4g}: classes are whole numbers "
            "(targets.long(), if these are classes); for numbers, give algorithm.likelihood gaussian (or poisson)."
        )
    return tensor.to(torch.int64)


Targets = Callable[[Any, str], Tensor]
"""From what is given, and what it is of, to targets as they are learned: ``class_numbers``, or a likelihood's."""


def labels_of_items(
    targets: Sequence[Any], views: Sequence[Any], name: str, checked: Targets = class_numbers
) -> Tensor:
    """The labels that a dataset's items have: those of its targets, by its target transform if it has one.

    A target transform is a function of the target, so one example of each target is read.

    Args:
        targets: As the dataset announces them, one for each example.
        views: The dataset as it is evaluated and, if that is another, as it is learned; items are (input, label, ...).
        name: What to call it in an error.
        checked: Makes targets of what items give.

    Returns:
        Shape (N,), int64 of classes.

    Raises:
        ValueError: They are not what they should be, or others in one view than in the other.
    """
    keys = [_hashable(target) for target in targets]
    first: dict[Any, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    with kept_random_state():  # augmentation may draw
        of_views = [_labels_at(list(first.values()), view, name, checked) for view in views]
    for labels in of_views[1:]:
        if not torch.equal(labels, of_views[0]):
            raise ValueError(
                f"the labels of {name} are others when it is learned than when it is evaluated: give both of its "
                "transform groups, train and eval, the same target transform."
            )
    number = dict(zip(first, of_views[0].tolist(), strict=True))
    return torch.tensor([number[key] for key in keys], dtype=of_views[0].dtype)


def _labels_at(rows: list[int], view: Any, name: str, checked: Targets) -> Tensor:
    checked([view[i][1] for i in rows[:1]], name)  # refuses before every distinct float is read
    return checked([view[i][1] for i in rows], name)


def _hashable(target: Any) -> Any:
    value = target.tolist() if hasattr(target, "tolist") else target
    return tuple(value) if isinstance(value, list) else value


def parts_of_items(views: Sequence[Any], name: str) -> Parts | None:
    """What the parts of a dataset's inputs are like; None where an input is a single tensor.

    Args:
        views: The dataset as it is evaluated and, if that is another, as it is learned; not empty.
        name: What to call it in an error.

    Raises:
        ValueError: The first input is another in one view than in the other, but for its values.
    """
    with kept_random_state():  # augmentation may draw
        first = [view[0][0] for view in views]
    parts = [Parts.of(x, name) for x in first]
    like = [
        p or (tuple(getattr(x, "shape", ())), str(getattr(x, "dtype", ""))) for p, x in zip(parts, first, strict=True)
    ]
    for seen in like[1:]:
        if seen != like[0]:
            raise ValueError(
                f"the inputs of {name} are {_described(like[0])} when they are evaluated and {_described(seen)} when "
                "they are learned: give both of its transform groups, train and eval, a transform to one shape and "
                "type."
            )
    return parts[0]


def _described(like: Any) -> str:
    return str(like) if isinstance(like, Parts) else f"{like[1].removeprefix('torch.')} of shape {like[0]}"


def stacked(inputs: Sequence[Any], name: str, parts: Parts | None = None) -> Tensor:
    """Inputs as one tensor, shape (B, ...).

    Args:
        inputs: What a dataset's items give.
        name: What to call the dataset in an error.
        parts: What their parts are like, where they have any.

    Raises:
        ValueError: They are no tensors, or of different shapes.
    """
    if parts is not None:
        return parts.stacked(inputs, name)
    try:
        return torch.stack([torch.as_tensor(x) for x in inputs])
    except (TypeError, ValueError, RuntimeError) as error:
        shapes = {tuple(x.shape) for x in inputs if hasattr(x, "shape")}
        if len(shapes) > 1:
            one, other = sorted(shapes)[:2]
            what = f"of different shapes, such as {one} and {other}: give a transform that makes them one size"
        else:
            what = (
                f"{type(inputs[0]).__name__}, which is no tensor: give the dataset a transform, such as "
                "torchvision.transforms.ToTensor()"
            )
        raise ValueError(f"the inputs of {name} are {what}.") from error


def refuse_not_finite(x: Tensor, rows: Tensor, name: str, parts: Parts | None = None) -> None:
    """Sees that inputs are finite.

    Args:
        x: Inputs, shape (B, ...).
        rows: Their places among the examples of the experience, shape (B,).
        name: What the experience is called in an error.
        parts: What their parts are like, where they have any.

    Raises:
        ValueError: One is not; it says which.
    """
    if parts is not None:
        x = torch.cat([part.reshape(len(x), -1).double() for part in parts.tensors(x)], 1)
    if not x.is_floating_point() or bool(torch.isfinite(x).all()):
        return
    place = int((~torch.isfinite(x.flatten(1))).any(dim=1).nonzero()[0])
    values = x[place].flatten()
    value = float(values[~torch.isfinite(values)][0])
    raise ValueError(
        f"example {int(rows[place])} (counted from 0) of {name} has the input {value}: fill in what is missing, or "
        "leave the example out."
    )
