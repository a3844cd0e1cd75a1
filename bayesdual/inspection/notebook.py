"""What a notebook shows in place of a terminal's bar and table; IPython is there wherever a notebook is."""

from __future__ import annotations

import math
import time
from html import escape
from typing import Any

from rich.progress import TaskID

from bayesdual import measures
from bayesdual.inspection.tables import cell, grouped, heat

SECONDS = 0.25  # between two drawings of a bar
SPACES = ' style="padding: 1px 7px; text-align: right;"'


def show(html: str) -> Any:
    """Shows HTML below the cell, and returns what changes it."""
    return _ipython().display(_ipython().HTML(html), display_id=True)


def _ipython() -> Any:
    from IPython import display  # type: ignore[import-not-found]  # no dependency: a notebook has it

    return display


class NotebookBar:
    """A bar, with the methods of :class:`rich.progress.Progress` that are needed of it."""

    def __init__(self) -> None:
        self.disable = False
        self._handle: Any = None
        self._description, self._total, self._done = "", 1.0, 0.0
        self._began = self._drawn = self._done_before = 0.0

    def add_task(self, description: str, total: float) -> TaskID:
        self._description, self._total, self._done = description, total, 0.0
        return TaskID(0)

    def start(self) -> None:
        self._began, self._done_before = time.monotonic(), -1.0
        self._handle = None if self.disable else show(self._html())

    def update(self, task: TaskID, description: str, completed: float) -> None:
        self._description, self._done = description, completed
        if self._done_before < 0:  # a run that goes on
            self._done_before = completed
        self._draw()

    def advance(self, task: TaskID, amount: float) -> None:
        self._done += amount
        if time.monotonic() - self._drawn >= SECONDS:
            self._draw()

    def stop(self) -> None:
        self._draw()
        self._handle = None

    def _draw(self) -> None:
        if self._handle is not None and not self.disable:
            self._drawn = time.monotonic()
            self._handle.update(_ipython().HTML(self._html()))

    def _html(self) -> str:
        share, since = self._done / self._total, self._done - max(0.0, self._done_before)
        text = f"{escape(self._description)} {share:.0%}"
        if since > 0 and (left := (time.monotonic() - self._began) / since * (self._total - self._done)) >= 1:
            text += f", {int(left) // 60}:{int(left) % 60:02d} left"
        return f'<progress value="{self._done:.4g}" max="{self._total:g}"></progress> {text}'


def matrix_html(matrix: measures.Matrix, score: measures.Score = measures.ACCURACY) -> str:
    """The matrix of a score as a table, each accuracy on its colour; of many experiences, means of several."""
    rows, columns, text = grouped(matrix)
    head = "".join(f"<th{SPACES}>{name}</th>" for name in ("after", *columns))
    lines = []
    for name, values in rows:
        cells = "".join(_cell(value, score) for value in values)
        lines.append(f"<tr><th{SPACES}>{name}</th>{cells}</tr>")
    caption = f"{score.name} on each experience (columns) after learning each (rows){text}"
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(value: float, score: measures.Score) -> str:
    if math.isnan(value):
        return f"<td{SPACES}></td>"
    ink, behind = heat(value)
    look = f" color: {ink}; background: {behind};" if score == measures.ACCURACY else ""
    return f'<td{SPACES[:-1]}{look}" title="{value!r}">{cell(value, score)}</td>'
