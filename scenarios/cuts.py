"""From labelled examples to experiences: by classes, by domain or by time, each with its part to learn and to test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from bayesdual.scenarios.datasets import stratified_split
from bayesdual.scenarios.labels import Where, as_number, in_order, is_missing

By = Literal["classes", "domain", "time"]
Every = Literal["year", "month", "day"]
_UNIT = {"year": "Y", "month": "M", "day": "D"}
N_EXPERIENCES = 5


@dataclass(frozen=True)
class Examples:
    """What is known of N examples beside their inputs.

    Attributes:
        name: What they are called.
        where: Where one stands, for an error.
        y: Class numbers, shape (N,), int64; or targets that are numbers, shape (N,), float32.
        class_names: The name of each class; none where targets are numbers.
        domain: The domain of each; None: there are none.
        time: When each was, numbers or dates; None: they are in order.
        groups: What each comes from, which stays on one side of a split; None: each stands for itself.
        for_test: Which of them are for testing, shape (N,); None: a share is drawn.
    """

    name: str
    where: Where
    y: np.ndarray
    class_names: tuple[str, ...]
    domain: Sequence[Any] | None = None
    time: Sequence[Any] | None = None
    groups: Sequence[Any] | None = None
    for_test: np.ndarray | None = None


@dataclass(frozen=True)
class Cut:
    """How examples become a stream.

    Attributes:
        by: What tells experiences apart.
        n_experiences: How many; None: 5, or as many as there are domains or periods.
        every: Length of a period, where time is dates; None: equal parts in order.
        test: Share for testing, where none is given.
        validation: Share of the rest for validation.
        class_order: Names of the classes in the order in which they come; None: that of their numbers.
        shuffle_classes: Draw that order from the seed instead.
        seed: Of all that is drawn.
    """

    by: By = "classes"
    n_experiences: int | None = None
    every: Every | None = None
    test: float = 0.2
    validation: float = 0.0
    class_order: Sequence[Any] | None = None
    shuffle_classes: bool = False
    seed: int = 0


Parts = dict[str, list[np.ndarray]]
"""The rows of each experience of each stream: ``train``, ``test`` and, if asked for, ``valid``."""


def cut(examples: Examples, how: Cut) -> Parts:
    """Cuts examples into experiences, and each of these into streams.

    By classes and by domain the share for testing is drawn from each class of each experience; by time it is the latest
    of each experience, since neighbours in time resemble each other. Groups are drawn whole.

    Raises:
        ValueError: The arguments contradict each other, or an experience or a class would be left without examples to
            learn or to test.
    """
    _check(examples, how)
    whole = {"classes": _by_classes, "domain": _by_domain, "time": _by_time}[how.by](examples, how)
    is_test = examples.for_test if examples.for_test is not None else _held_out(examples, how, whole, how.test)
    parts = {"train": [rows[~is_test[rows]] for rows in whole.values()]}
    if how.validation:
        rest = dict(zip(whole, parts["train"], strict=True))
        is_valid = _held_out(examples, how, rest, how.validation)
        parts = {
            "train": [rows[~is_valid[rows]] for rows in rest.values()],
            "valid": [rows[is_valid[rows]] for rows in rest.values()],
        }
    parts["test"] = [rows[is_test[rows]] for rows in whole.values()]
    _refuse_empty(examples, how, list(whole), parts)
    return parts


def _check(examples: Examples, how: Cut) -> None:
    name = examples.name
    if how.by not in ("classes", "domain", "time"):
        raise ValueError(f"by is {how.by!r}: give classes, domain or time.")
    if examples.for_test is None and not 0 < how.test < 1:
        raise ValueError(f"test is {how.test}: give a share between 0 and 1, or examples of their own for testing.")
    if not 0 <= how.validation < 1:
        raise ValueError(f"validation is a share of the training data in [0, 1), not {how.validation}.")
    if how.by == "domain" and examples.domain is None:
        raise ValueError(f"{name} is to be cut by domain: give domain, which says of what each example is.")
    if how.by != "domain" and examples.domain is not None:
        raise ValueError(f"domain is given, but the stream is cut by {how.by}: give by: domain, or no domain.")
    if how.by != "time" and (examples.time is not None or how.every is not None):
        raise ValueError(f"time or every is given, but the stream is cut by {how.by}: give by: time, or neither.")
    if how.by != "classes" and (how.class_order is not None or how.shuffle_classes):
        raise ValueError(f"class_order and shuffle_classes are of streams by classes; this one is cut by {how.by}.")
    if how.class_order is not None and how.shuffle_classes:
        raise ValueError("class_order gives the order of the classes, so shuffle_classes must be false.")
    n = how.n_experiences
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ValueError(f"n_experiences is a whole number of at least 1, not {n!r}.")
    if not examples.class_names:
        if how.by == "classes":
            raise ValueError(f"targets of {name} are numbers, which are no classes to cut by: give by domain or time.")
        return
    if len(examples.class_names) < 2:
        raise ValueError(f"{name} has one class, {_few(examples.class_names)!r}: there is nothing to tell apart.")
    learned = examples.y if examples.for_test is None else examples.y[~examples.for_test]
    counts = np.bincount(learned, minlength=len(examples.class_names))
    if examples.for_test is None and counts.min() == 1:
        c = int(counts.argmin())
        raise ValueError(
            f"class {examples.class_names[c]!r} of {name} has one example, {examples.where(_first(examples.y, c))}: "
            "give at least one to learn and one to test, or leave it out."
        )
    if counts.min() == 0:
        c = int(counts.argmin())
        raise ValueError(
            f"class {examples.class_names[c]!r} of {name} is only among the examples for testing "
            f"({examples.where(_first(examples.y, c))}): give some to learn, or leave it out."
        )


def _by_classes(examples: Examples, how: Cut) -> dict[str, np.ndarray]:
    names = examples.class_names
    order = list(range(len(names)))
    if how.class_order is not None:
        if sorted(map(str, how.class_order)) != sorted(names):
            raise ValueError(f"class_order names each class of {_few(names)} once, unlike {_few(how.class_order)}.")
        order = [names.index(str(name)) for name in how.class_order]
    elif how.shuffle_classes:
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(how.seed)).tolist()
    n = how.n_experiences or N_EXPERIENCES
    if n > len(names):
        raise ValueError(
            f"{examples.name} has {len(names)} classes ({_few(names)}), fewer than the {n} experiences to be made: "
            f"give n_experiences of at most {len(names)}, or cut by domain or time."
        )
    return {
        f"experience {i + 1} ({_few([names[c] for c in classes])})": np.flatnonzero(np.isin(examples.y, classes))
        for i, classes in enumerate(np.array_split(order, n))
    }


def _by_domain(examples: Examples, how: Cut) -> dict[str, np.ndarray]:
    assert examples.domain is not None
    domain = list(examples.domain)
    _refuse_missing(examples, domain, "domain")
    found: dict[Any, list[int]] = {value: [] for value in in_order(domain)}
    for i, value in enumerate(domain):
        found[value].append(i)
    if how.n_experiences not in (None, len(found)):
        raise ValueError(
            f"{examples.name} has {len(found)} domains ({_few(list(found))}), an experience each: leave n_experiences "
            "out, or merge domains."
        )
    return {f"domain {str(value)!r}": np.array(rows) for value, rows in found.items()}


def _by_time(examples: Examples, how: Cut) -> dict[str, np.ndarray]:
    n_examples = len(examples.y)
    if how.every is None:
        order = np.arange(n_examples) if examples.time is None else np.argsort(_moments(examples), kind="stable")
        n = how.n_experiences or N_EXPERIENCES
        if n > n_examples:
            raise ValueError(f"{examples.name} has {n_examples} examples, fewer than {n} experiences to be made.")
        return {f"part {i + 1} of {n}": rows for i, rows in enumerate(np.array_split(order, n))}
    if how.every not in _UNIT:
        raise ValueError(f"every is {how.every!r}: give year, month or day, or n_experiences for equal parts.")
    if how.n_experiences is not None:
        raise ValueError("every says how many experiences there are: leave n_experiences out.")
    moments = None if examples.time is None else _moments(examples)
    if moments is None or moments.dtype.kind != "M":
        raise ValueError(
            f"{examples.name} is to be cut every {how.every}: give time as dates, such as 2013-01-31 or "
            "2013-01-31T10:00."
        )
    order = np.argsort(moments, kind="stable")
    periods = moments[order].astype(f"datetime64[{_UNIT[how.every]}]")
    return {f"{how.every} {period}": order[periods == period] for period in np.unique(periods)}


def _moments(examples: Examples) -> np.ndarray:
    """When examples were, as numbers or dates, shape (N,)."""
    assert examples.time is not None
    time = list(examples.time)
    _refuse_missing(examples, time, "time")
    if all(as_number(value) is not None for value in set(time)):
        return np.array([as_number(value) for value in time], dtype=np.float64)
    try:
        return np.array([_date(value) for value in time], dtype="datetime64[s]")
    except ValueError:
        for i, value in enumerate(time):
            try:
                np.datetime64(_date(value), "s")
            except ValueError:
                raise ValueError(
                    f"{examples.where(i)} has the time {str(value)!r:.40}: give numbers, or dates such as 2013-01-31 "
                    "or 2013-01-31T10:00."
                ) from None
        raise


def _date(value: Any) -> str:
    """A date as NumPy reads it, which takes all for UTC."""
    return str(value).removesuffix("Z")


def _held_out(examples: Examples, how: Cut, whole: dict[str, np.ndarray], share: float) -> np.ndarray:
    """Which examples make a share of each experience, shape (N,), bool."""
    out = np.zeros(len(examples.y), dtype=bool)
    if examples.groups is not None:
        rows = np.sort(np.concatenate(list(whole.values())))
        _refuse_missing(examples, examples.groups, "group")
        out[rows[_drawn_groups([examples.groups[i] for i in rows], share, how.seed)]] = True
        return out
    for rows in whole.values():
        if how.by == "time":
            out[rows[len(rows) - round(share * len(rows)) :]] = True
        else:
            y = examples.y[rows] if examples.class_names else np.zeros(len(rows), dtype=np.int64)
            out[rows[stratified_split(torch.from_numpy(y), share, how.seed)[1]]] = True
    return out


def _drawn_groups(groups: Sequence[Any], share: float, seed: int) -> np.ndarray:
    """Positions of the examples of about a share of the groups."""
    from sklearn.model_selection import GroupShuffleSplit  # seconds to import, so only when wanted

    number = {value: i for i, value in enumerate(dict.fromkeys(groups))}
    if len(number) < 2:
        raise ValueError("groups has one value for all examples: a part for testing needs a group of its own.")
    of_each = np.array([number[value] for value in groups])
    [(_, drawn)] = GroupShuffleSplit(1, test_size=share, random_state=seed).split(of_each, groups=of_each)
    return drawn


def _refuse_empty(examples: Examples, how: Cut, titles: list[str], parts: Parts) -> None:
    """Sees that each experience has examples in each stream, and each class where it is learned and tested."""
    setting = {"train": "test", "valid": "validation", "test": "test"}
    why = ", as groups are drawn whole: give another seed or share" if examples.groups is not None else ""
    for stream, of_stream in parts.items():
        for title, rows in zip(titles, of_stream, strict=True):
            if len(rows) == 0:
                raise ValueError(
                    f"{title} of {examples.name} has no example for the stream {stream!r}"
                    f"{why or f': give another share as {setting[stream]}, or more examples'}."
                )
        seen = set(examples.y[np.concatenate(of_stream)].tolist())
        needed = bool(examples.class_names) and (stream == "train" or how.by == "classes")
        if needed and (absent := sorted(set(range(len(examples.class_names))) - seen)):
            c = absent[0]
            raise ValueError(
                f"class {examples.class_names[c]!r} of {examples.name} has {int((examples.y == c).sum())} examples and "
                f"none of them in the stream {stream!r}"
                f"{why or f': give another share as {setting[stream]}, or more examples'}."
            )


def _refuse_missing(examples: Examples, values: Sequence[Any], what: str) -> None:
    for value in dict.fromkeys(values):
        if is_missing(value):
            i = next(i for i, v in enumerate(values) if v is value or v == value)
            raise ValueError(f"{examples.where(i)} has no {what}: fill it in, or leave the example out.")


def _first(y: np.ndarray, c: int) -> int:
    return int(np.flatnonzero(y == c)[0])


def _few(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")
