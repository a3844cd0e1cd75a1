"""A benchmark from arrays of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.scenarios import EagerCLStream
from torch import Tensor

from bayesdual.scenarios.benchmark import Rows, TensorBenchmark, TensorExperience, identity
from bayesdual.scenarios.cuts import By, Cut, Every, Examples, Parts, cut
from bayesdual.scenarios.labels import TargetKind, Where, of_kind
from bayesdual.scenarios.scaling import scale_of

ENOUGH = 1000  # images that levels are measured on


def from_arrays(
    x: Any,
    y: Any,
    *,
    by: By = "classes",
    n_experiences: int | None = None,
    domain: Any = None,
    time: Any = None,
    every: Every | None = None,
    test: Any = 0.2,
    validation: float = 0.0,
    groups: Any = None,
    class_order: list | None = None,
    shuffle_classes: bool = False,
    standardise: bool = True,
    seed: int = 0,
    task_labels: bool = False,
    targets: TargetKind = "classes",
) -> TensorBenchmark:
    """Arrays of yours, split by class, by domain or by time.

    Every array may also be the path of a ``.npy`` file.

    Args:
        x: Inputs, shape (N, ...): numbers; or images in uint8, shape (N, C, H, W), (N, H, W, C) or (N, H, W), which
            stay uint8.
        y: Labels, shape (N,): whole numbers or names, in any order and with any gaps; or numbers, see ``targets``.
        by: What tells experiences apart: ``classes``; ``domain``, an experience each, numbers ascending and names as
            they first come; or ``time``.
        n_experiences: Number of experiences; None: 5, or as many as there are domains or periods. The first ones get
            one class (or example) more where it does not divide.
        domain: The domain of each example, shape (N,).
        time: When each was: numbers or dates, shape (N,); None: they are in order.
        every: ``year``, ``month`` or ``day``: an experience for each, by dates; None: parts of equal size.
        test: Share for testing: drawn class by class, by time the latest of each experience; or which examples are for
            testing, shape (N,), bool.
        validation: Share of the rest that makes the stream ``valid``, in the same way; 0: no such stream.
        groups: What each example comes from (a customer, a source), shape (N,): examples of one are on one side.
        class_order: The classes in the order in which they come; None: numbers ascending, names by the alphabet.
        shuffle_classes: Draw that order from the seed instead.
        standardise: Give each column (of images and signals: each channel) mean 0 and standard deviation 1 in the first
            experience's training data.
        seed: Seed of all that is drawn.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        targets: What y is: ``classes``, or ``numbers``, which a likelihood of numbers learns, and which are cut by
            domain or by time.

    Raises:
        ValueError: What cannot be learned from, in a sentence.
    """
    inputs, labels = as_inputs(_array(x, "x")), _array(y, "y")
    n = len(inputs)
    if labels.shape != (n,):
        raise ValueError(f"x has {n} examples and y has shape {labels.shape}: give one label for each, shape ({n},).")
    where = counted("x")
    _refuse_not_finite(inputs, where)
    share, for_test = _share_or_mask(test, n)
    examples = Examples(
        "x",
        where,
        *of_kind(targets, labels, where),
        domain=_of_each(domain, n, "domain"),
        time=_of_each(time, n, "time"),
        groups=_of_each(groups, n, "groups"),
        for_test=for_test,
    )
    how = Cut(by, n_experiences, every, share, validation, class_order, shuffle_classes, seed)
    parts = cut(examples, how)
    if inputs.dtype == torch.uint8:
        mean, std = levels(inputs, *learned(parts)) if standardise else ((), ())
        return held(inputs, examples, parts, mean=mean, std=std, task_labels=task_labels)
    if not standardise:
        inputs = inputs.float() if inputs.is_floating_point() else inputs
        return held(inputs, examples, parts, task_labels=task_labels)
    scale = scale_of(inputs, *learned(parts), _channels(inputs))
    benchmark = held(scale(inputs), examples, parts, task_labels=task_labels)
    benchmark.encoding = scale
    return benchmark


def held(
    x: Tensor,
    examples: Examples,
    parts: Parts,
    *,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    task_labels: bool = False,
) -> TensorBenchmark:
    """A benchmark of examples that are held as a tensor.

    Args:
        x: Inputs, shape (N, ...).
        examples: What is known of them.
        parts: Which of them each experience has.
        mean: Of each channel of images, on the scale 0..1.
        std: Of each channel of images, on the scale 0..1.
        task_labels: Whether experience i has task label i; otherwise all have 0.
    """
    y = torch.from_numpy(examples.y)
    timeline = [np.unique(examples.y[rows]).tolist() if examples.class_names else [] for rows in parts["train"]]

    def experience(rows: np.ndarray, i: int) -> TensorExperience:
        task = i if task_labels else 0
        return TensorExperience(Rows(x, y, torch.from_numpy(rows), identity, task, mean, std), i, timeline)

    return TensorBenchmark(streams_of(parts, experience), timeline, examples.class_names)


def levels(x: Tensor, first: Tensor, all_learned: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images (N, C, H, W) in uint8, on the scale 0..1."""
    few = first[:: -(-len(first) // ENOUGH)], all_learned[:: -(-len(all_learned) // ENOUGH)]
    scale = scale_of(x, *few, [f"channel {i}" for i in range(x.shape[1])])
    std = scale.std.masked_fill(scale.std.isinf(), 255)
    return tuple((scale.mean / 255).tolist()), tuple((std / 255).tolist())


def streams_of(parts: Parts, experience: Callable[[np.ndarray, int], Any]) -> list[EagerCLStream]:
    """The streams of a benchmark, from their rows, by what makes an experience of these and of its number."""
    return [
        EagerCLStream(name, [experience(rows, i) for i, rows in enumerate(of_stream)])
        for name, of_stream in parts.items()
    ]


def as_inputs(x: np.ndarray) -> Tensor:
    """Numbers as a tensor, and images in uint8 with their channels first.

    Raises:
        ValueError: They are no numbers, or bytes that are no images.
    """
    if x.dtype.kind not in "fiub":
        raise ValueError(f"x holds {x.dtype.name}, no numbers: bayesdual.scenarios.from_table reads tables with text.")
    if x.ndim < 2:
        raise ValueError(f"x has shape {x.shape}: give one row for each example, shape (N, ...).")
    if x.dtype == np.uint8 and x.ndim > 2:
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4 and x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
            x = x.transpose(0, 3, 1, 2)
        elif x.ndim > 4:
            raise ValueError(f"x has shape {x.shape}, in uint8: images have the shape (N, C, H, W).")
    elif x.dtype.kind in "ui":
        x = x.astype(np.int64)
    elif x.dtype.kind == "b":
        x = x.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(x))


def counted(name: str) -> Where:
    """Where an example of an array stands."""
    return lambda i: f"example {i} (counted from 0) of {name}"


def learned(parts: Parts) -> tuple[Tensor, Tensor]:
    """The rows that the first experience learns from, and those that any does."""
    return torch.from_numpy(parts["train"][0]), torch.from_numpy(np.concatenate(parts["train"]))


def _array(given: Any, name: str) -> np.ndarray:
    """An array, from a file if it is the path of one."""
    if not isinstance(given, str | Path):
        return np.asarray(given)
    try:
        return np.load(given, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{name} is {str(given)!r}: there is no such file; give a .npy file or an array.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{given} is no .npy file of numbers or text ({error}): write it by numpy.save.") from None


def _of_each(given: Any, n: int, name: str) -> list[Any] | None:
    """One value for each of n examples, as Python's own."""
    if given is None:
        return None
    values = _array(given, name)
    if values.shape != (n,):
        raise ValueError(f"{name} has shape {values.shape}: give one for each example, shape ({n},).")
    return [str(value) for value in values] if values.dtype.kind == "M" else values.tolist()


def _share_or_mask(test: Any, n: int) -> tuple[float, np.ndarray | None]:
    if isinstance(test, float | int) and not isinstance(test, bool):
        return float(test), None
    mask = _array(test, "test")
    if mask.dtype != bool or mask.shape != (n,) or not mask.any() or mask.all():
        raise ValueError(
            f"test is neither a share nor one true or false for each of the {n} examples, some of each: give one of "
            "these."
        )
    return 0.0, mask


def _refuse_not_finite(x: Tensor, where: Where) -> None:
    if not x.is_floating_point() or bool(torch.isfinite(x).all()):
        return
    place = (~torch.isfinite(x)).nonzero()[0].tolist()
    value = float(x[tuple(place)])
    raise ValueError(
        f"{where(place[0])} has {value} in {'column' if x.dim() == 2 else 'place'} {', '.join(map(str, place[1:]))}: "
        "fill in what is missing, or leave the example out."
    )


def _channels(x: Tensor) -> list[str]:
    return [f"{'column' if x.dim() == 2 else 'channel'} {i} of x" for i in range(x.shape[1])]
