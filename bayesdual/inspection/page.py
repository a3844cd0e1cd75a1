"""Pieces of an HTML page that holds all it needs: figures as SVG, and charts over them where a browser can draw these.

Charts are drawn by Vega (the extra ``inspect``), which is written into the page; until it has drawn, without a script,
and on paper, the figure behind is seen. The page forbids itself requests to any host.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from bayesdual.inspection.charts import Chart

VEGA = "vl_convert"  # of the extra: Vega as one script
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'"
STYLE = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 0; overflow-wrap: anywhere; }
section { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 0 2rem; }
section > * { min-width: 0; } section > :not(figure) { grid-column: 1 / -1; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.differs { background: #fff3d6; } td.best { font-weight: bold; } small { color: #555; font-weight: normal; }
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 2rem; }
.runs > * { min-width: 0; }
figure { margin: 1rem 0; max-width: 44rem; } figure img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; }
.chart { width: 100%; }
.drawn img { display: none; }
@media print { .drawn img { display: block; } .drawn .chart { display: none; } }
"""
DRAW = """
const charts = JSON.parse(document.getElementById("charts").textContent);
for (const figure of document.querySelectorAll("figure[data-charts]")) {
  const places = [...figure.querySelectorAll(".chart")];
  const of = figure.dataset.charts.split(" ");
  const draw = (place, k) => vegaEmbed(place, charts[of[k]], {mode: "vega-lite", renderer: "svg", actions: false});
  figure.classList.add("drawn");
  Promise.all(places.map(draw)).catch(error => { figure.classList.remove("drawn"); console.error(error); });
}
"""


class Page:
    """A page as it is put together: what is added to it, and the charts that it draws.

    Args:
        title: Of the page.
        live: Whether charts are drawn over the figures.
        reload: Seconds after which a browser reads the page again, from where it has it; None: never.
    """

    def __init__(self, title: str, live: bool, reload: int | None = None) -> None:
        self.title = title
        self.reload = reload
        self.live = live
        self._body: list[str] = [f"<h1>{escape(title)}</h1>"]
        self._charts: dict[str, Chart] = {}

    def section(self, heading: str, *parts: str) -> None:
        """Adds a section of pieces of HTML."""
        self._body.append(f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>")

    def figure(self, svg: bytes, caption: str, charts: Sequence[Chart] = ()) -> str:
        """A figure, and what is drawn over it.

        Args:
            svg: The figure.
            caption: What it shows, also for those who cannot see it.
            charts: One or several that show the same.
        """
        data, text = base64.b64encode(svg).decode(), escape(caption)
        image = f'<img alt="{text}" src="data:image/svg+xml;base64,{data}">'
        ids = [f"c{len(self._charts) + k}" for k in range(len(charts))] if self.live else []
        self._charts |= dict(zip(ids, charts, strict=False))
        known = f' data-charts="{" ".join(ids)}"' if ids else ""
        places = f'<div class="chart" role="img" aria-label="{text}"></div>' * len(ids)
        return f"<figure{known}>{places}{image}<figcaption>{text}</figcaption></figure>"

    def html(self) -> str:
        """The whole page."""
        meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        meta += f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        meta += f'<meta http-equiv="refresh" content="{self.reload}">' if self.reload else ""
        head = f"<head>{meta}<title>{escape(self.title)}</title><style>{STYLE}</style></head>"
        script = ""
        if self._charts:
            data = json.dumps(self._charts, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
            script = f'<script type="application/json" id="charts">{data}</script>'
            script += f'<script type="module">{vega()}{DRAW}</script>'
        return f'<!doctype html><html lang="en">{head}<body>{"".join(self._body)}{script}</body></html>\n'


class Cell(NamedTuple):
    """Of a table.

    Attributes:
        text: What is read.
        exact: The value to the last digit, shown where the cell is pointed at.
        beside: What is said of it in small.
        kind: Its class: ``best`` or ``differs``.
    """

    text: str
    exact: str = ""
    beside: str = ""
    kind: str = ""


def table(header: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> str:
    """A table that is scrolled in itself where it is too wide."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = ["".join(_cell(Cell(cell) if isinstance(cell, str) else cell) for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(cell: Cell) -> str:
    known = "".join(
        f' {name}="{escape(value)}"' for name, value in (("class", cell.kind), ("title", cell.exact)) if value
    )
    beside = f"<br><small>{escape(cell.beside)}</small>" if cell.beside else ""
    return f"<td{known}>{escape(cell.text)}{beside}</td>"


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def folded(summary: str, text: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{text}</details>"


@cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script.

    Raises:
        ModuleNotFoundError: The extra ``inspect`` is not installed.
    """
    return import_module(VEGA).javascript_bundle().replace("</script", "<\\/script")


def can_be_live() -> bool:
    """Whether charts can be drawn: the extra ``inspect`` is installed."""
    return find_spec(VEGA) is not None
