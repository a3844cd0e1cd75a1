"""The runs that were made, on disk, so that none is made twice; and which code made each.

A run is known by its settings and a digest of the code that makes it (see ``bayesdual.sources``). Another setting or
other code makes another run; what other code made stays where it is and is left aside.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bayesdual import __version__, sources
from bayesdual.configuration import CommandLineError
from bayesdual.dotted import named
from bayesdual.files import append_line

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Cell:
    """One run to be made: a method on a benchmark with a seed.

    Attributes:
        title: What people call it.
        spec: All settings that its results depend on, as plain values. ``learn`` is the dotted name of the function
            that makes the run, and ``arguments`` are what that function takes.
    """

    title: str
    spec: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The dotted names in its settings, of ``learn`` and of whatever else they name, in order."""
        return sorted({*dotted_names(self.spec)})

    @cached_property
    def code(self) -> str:
        """The digest of the code behind these, in the process that asks first."""
        return sources.digest(*self.names)

    @property
    def name(self) -> str:
        """The hash of settings and code."""
        text = json.dumps({"spec": self.spec, "code": self.code}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def learn(self) -> Callable[..., dict[str, Any]]:
        """The function that makes it."""
        return named(self.spec["learn"])


@dataclass(frozen=True)
class Run:
    """A run that was made.

    Attributes:
        name: See :class:`Cell`.
        title: See :class:`Cell`.
        spec: See :class:`Cell`.
        code: The digest of the code that made it; None: it was made before there were any.
        version: Of bayesdual.
        results: What it gave; None: it diverged.
        made_by: The process or the node that made it.
        diverged: How it diverged, if it did.
    """

    name: str
    title: str
    spec: dict[str, Any]
    code: str | None
    version: str
    results: dict[str, Any] | None
    made_by: str = ""
    diverged: str | None = None


class Store:
    """The runs in a file: a line of JSON for each, in the order in which they were made; the last of a name counts.

    Args:
        path: The file; it is made when the first run is kept.

    Raises:
        CommandLineError: It cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._runs: dict[str, Run] = {}
        self._damaged = 0
        for line in self._lines():
            try:
                run = Run(**json.loads(line))
                self._runs[run.name] = run
            except (ValueError, TypeError):  # cut off by a kill, or by hand
                self._damaged += 1

    def __contains__(self, cell: Cell) -> bool:
        return cell.name in self._runs

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def __getitem__(self, cell: Cell) -> Run:
        """The run of a cell.

        Raises:
            KeyError: It was not made.
        """
        return self._runs[cell.name]

    def keep(self, cell: Cell, results: dict[str, Any] | None, **more: str) -> Run:
        """Keeps what a cell gave; None if it diverged. More is as in :class:`Run`."""
        run = Run(cell.name, cell.title, cell.spec, cell.code, __version__, results, **more)
        append_line(self.path, json.dumps(asdict(run)))
        self._runs[run.name] = run
        return run

    def make(self, cell: Cell) -> Run:
        """The run of a cell: the one that is there, or a new one that is made here and kept."""
        return self[cell] if cell in self else self.keep(cell, cell.learn(**cell.spec["arguments"]))

    def latest(self) -> dict[str, Run]:
        """The last run of each title, whatever code made it."""
        return {run.title: run for run in self}

    def left_aside(self, cells: Iterable[Cell]) -> str | None:
        """Says in one sentence which runs are not used for cells, since other code made them; None if there is none.

        Args:
            cells: Those that are to be made, or are.
        """
        codes = {cell.code for cell in cells}
        others = [run for run in self if run.code is not None and run.code not in codes]
        unknown = [run for run in self if run.code is None]
        parts = []
        if others:
            digests = dict.fromkeys(run.code[: sources.SHORT] for run in others if run.code)
            parts.append(f"{counted(len(others))} of other code ({', '.join(digests)})")
        if unknown:
            parts.append(f"{counted(len(unknown))} without a digest of the code that made them")
        if self._damaged:
            parts.append(f"{counted(self._damaged)} whose line is damaged")
        return f"left aside, and kept in {self.path}: {'; '.join(parts)}." if parts else None

    def _lines(self) -> list[str]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        except OSError as error:
            raise CommandLineError(f"{self.path} cannot be read ({error.strerror}).") from None
        return [line for line in text.split("\n") if line]


def made_by(runs: Iterable[Run]) -> str:
    """Which code made runs, in one line: versions of bayesdual, and digests."""
    codes = dict.fromkeys((run.version, run.code) for run in runs)
    return "; ".join(f"bayesdual {v} (code {c[: sources.SHORT] if c else 'not recorded'})" for v, c in codes)


def dotted_names(value: Any) -> Iterator[str]:
    """All text in nested plain values that could be the dotted name of something."""
    if isinstance(value, str) and DOTTED.fullmatch(value):
        yield value
    elif isinstance(value, Mapping):
        yield from (name for part in value.values() for name in dotted_names(part))
    elif isinstance(value, list | tuple):
        yield from (name for part in value for name in dotted_names(part))


def counted(n: int) -> str:
    return f"{n} run{'s' * (n != 1)}"
