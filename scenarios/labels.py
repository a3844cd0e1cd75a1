"""Class names of any kind, numbered 0, 1, and so on; and targets that are numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import numpy as np

Where = Callable[[int], str]
"""The position of an example, to where it stands, as people find it: "line 18 of flights.csv"."""


TargetKind = Literal["classes", "numbers"]


def of_kind(kind: TargetKind, given: Iterable[Any], where: Where) -> tuple[np.ndarray, tuple[str, ...]]:
    """Classes as :func:`numbered` gives them; or numbers, shape (N,), float32, and no names.

    Raises:
        ValueError: There is no such kind, or a target is not of it.
    """
    if kind not in get_args(TargetKind):
        raise ValueError(f"targets is {kind!r}: give classes or numbers.")
    return numbered(given, where) if kind == "classes" else (_numbers(given, where), ())


def _numbers(given: Iterable[Any], where: Where) -> np.ndarray:
    values = [as_number(_plain(value)) for value in given]
    for i, value in enumerate(values):
        if value is None or not math.isfinite(value):
            raise ValueError(f"{where(i)} has a target that is no number: fill it in, or leave the example out.")
    return np.array(values, dtype=np.float32)


def numbered(labels: Iterable[Any], where: Where) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers the classes: whole numbers in their order, and so text that holds only these; else by the alphabet.

    Args:
        labels: One for each example: whole numbers or anything hashable, consecutive or not.
        where: Where an example stands, for an error.

    Returns:
        Class numbers, shape (N,), int64; the name of each class.

    Raises:
        ValueError: A label is missing, or a number with a fraction, or several, or two are written alike.
    """
    given = [_plain(label) for label in labels]
    first: dict[Any, int] = {}
    for i, label in enumerate(given):
        try:
            first.setdefault(label, i)
        except TypeError:
            raise ValueError(
                f"{where(i)} has the label {label!r:.60}: give one class for each example; several of one example "
                "(multi-label) and one-hot labels are not supported."
            ) from None
    for label, i in first.items():
        if is_missing(label):
            raise ValueError(f"{where(i)} has no label: leave the example out.")
        if (number := as_number(label)) is not None and not float(number).is_integer():
            raise ValueError(
                f"{where(i)} has the label {label}, a number with a fraction: classes are whole numbers or names; for "
                "numbers, give targets numbers, and algorithm.likelihood gaussian."
            )
    ordered = in_order(sorted(first, key=str))
    names = [_name(label) for label in ordered]
    for name in names:
        if names.count(name) > 1:
            alike = [first[label] for label in ordered if _name(label) == name][:2]
            raise ValueError(
                f"{where(alike[0])} and {where(alike[1])} have labels of different kinds that are both written {name}: "
                "write a class in one way."
            )
    number_of = {label: i for i, label in enumerate(ordered)}
    return np.array([number_of[label] for label in given], dtype=np.int64), tuple(names)


def is_missing(value: Any) -> bool:
    """Whether a value says that there is none: nothing, not a number, or a text that stands for it."""
    return str(value).strip().lower() in MISSING


MISSING = {"", "na", "n/a", "nan", "nat", "<na>", "null", "none", "?"}
"""How nothing is written, in small letters, also by NumPy and pandas."""


def as_number(value: Any) -> float | int | None:
    """A number, or a text that is one, as a number; None: it is none."""
    if isinstance(value, float):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except (TypeError, ValueError):
            continue
    return None


def in_order(values: Iterable[Any]) -> list[Any]:
    """Different values: numbers ascending, else as they first come."""
    different = list(dict.fromkeys(values))
    numbers = {value: number for value in different if (number := as_number(value)) is not None}
    return sorted(different, key=numbers.__getitem__) if len(numbers) == len(different) else different


def _plain(label: Any) -> Any:
    """An element of an array or tensor as Python's own."""
    value = label.tolist() if hasattr(label, "tolist") else label
    return value.strip() if isinstance(value, str) else value


def _name(label: Any) -> str:
    number = as_number(label) if isinstance(label, float) else None
    return str(label) if number is None else str(int(number))
