"""What was learned before a stream, and where in it a checkpoint stands.

What has been learned is a row of streams, the newest last. Of the experiences of older ones there are their classes
and sizes; their training data are not needed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bayesdual.stream import DatasetData, TensorData

LOOKED_AT = 16  # inputs of an experience, in a fingerprint


@dataclass(frozen=True)
class Past:
    """The experiences that were learned before a stream.

    Attributes:
        classes: The classes of each.
        sizes: How many examples each had.
        streams: How many experiences each of the streams had that they came in.
    """

    classes: tuple[list[int], ...] = ()
    sizes: tuple[int, ...] = ()
    streams: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.sizes)

    def followed_by(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        """The description of a stream with that of the past before it."""
        return {
            **stream,
            "classes": [*self.classes, *stream["classes"]],
            "sizes": [*self.sizes, *stream["sizes"]],
            "streams": [*self.streams, len(stream["sizes"])],
        }


NOTHING = Past()


def parts(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The streams in a description that :meth:`Past.followed_by` gave, or that is of before 0.3, when there was one."""
    found, first = [], 0
    for n in described.get("streams", [len(described["sizes"])]):
        of_these = slice(first, first + n)
        found.append({**described, "classes": described["classes"][of_these], "sizes": described["sizes"][of_these]})
        first += n
    return found


def past_of(described: Sequence[Mapping[str, Any]]) -> Past:
    """Streams that were learned, from their descriptions."""
    return Past(
        tuple(classes for stream in described for classes in stream["classes"]),
        tuple(size for stream in described for size in stream["sizes"]),
        tuple(len(stream["sizes"]) for stream in described),
    )


def first_difference(theirs: Mapping[str, Any], ours: Mapping[str, Any], but: str | None = None) -> str | None:
    """The first thing in which two streams differ: ``epochs``, ``classes`` or ``sizes``; None if in nothing."""
    return next((k for k in ("epochs", "classes", "sizes") if k != but and theirs.get(k) != ours[k]), None)


def fingerprint(experiences: Iterable[TensorData | DatasetData]) -> str:
    """A digest of the labels of a stream and of some of its inputs, as they are evaluated."""
    digest = hashlib.sha256()
    for data in experiences:
        rows = torch.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).long()
        for tensor in (data.y, data.inputs(rows)):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def evaluated_again(past: Past, earlier: Sequence[Sequence[Any] | None]) -> dict[int, Any]:
    """What older experiences are evaluated on, by experience.

    Args:
        past: What was learned.
        earlier: The data of each of its streams, the newest last, an item for each experience; None where they are
            gone. The oldest may be left out.

    Raises:
        ValueError: There are more than were learned.
    """
    if past and len(earlier) > len(past.streams):
        raise ValueError(
            f"StreamDataModule.after was given {len(earlier)} streams, but {len(past.streams)} have been learned "
            "before this one: give at most as many."
        )
    found: dict[int, Any] = {}
    first = 0
    for n, data in zip(past.streams, [None] * (len(past.streams) - len(earlier)) + [*earlier], strict=False):
        if data is not None and len(data) not in (1, n):  # one that is common to all stands at the first
            raise ValueError(
                f"a stream given to StreamDataModule.after has {len(data)} experiences to evaluate, but {n} were "
                "learned: give those that were learned before, the newest last, or None in place of one."
            )
        found |= dict(enumerate(data or (), start=first))
        first += n
    return found


def joined_names(known: Sequence[str], benchmark: Any) -> tuple[str, ...]:
    """The names of classes that are known, and those that a benchmark adds, by label.

    Raises:
        ValueError: A class has another name in the benchmark.
    """
    new = getattr(benchmark, "class_names", None)
    if not isinstance(new, list | tuple) or not all(isinstance(name, str) for name in new):
        return tuple(known)
    for label, (old, name) in enumerate(zip(known, new, strict=False)):
        if old != name:
            raise ValueError(
                f"class {label} of data.benchmark is {name!r}, but {old!r} was learned as class {label}: number new "
                "classes on from those learned."
            )
    return (*known, *new[len(known) :])
