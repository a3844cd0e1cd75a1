"""One HTML file about runs: how well, what was forgotten and when, what is remembered, how sure it is, what it cost.

It holds its figures (as SVG, so that they can be enlarged), the charts over them, and asks no other host for anything.
Several runs stand side by side under each question; what differs is marked.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bayesdual.inspection import answers
from bayesdual.inspection.answer_figures import (
    certainty_figure,
    classes_figure,
    confusion_figure,
    reliability_figure,
)
from bayesdual.inspection.charts import charts_of, compared_chart, seen_means
from bayesdual.inspection.figures import (
    Figures,
    accuracy_figure,
    compared_figure,
    losses_figure,
    parts_figure,
    posterior_figure,
    progress_figure,
)
from bayesdual.inspection.gap import gap_figure
from bayesdual.inspection.memory_charts import map_chart
from bayesdual.inspection.memory_figures import figures_of_memory
from bayesdual.inspection.page import Cell, Page, capital, heading, paragraph, table
from bayesdual.inspection.runs import Run
from bayesdual.inspection.tables import score_of
from bayesdual.inspection.verdict import lost
from bayesdual.measures import ACCURACY, SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UP, DOWN = 1, -1  # which way is better
MEASURES = {
    **{
        f"average_{score.key}": (f"average {score.name}", DOWN if score.lower_is_better else UP)
        for score in SCORES.values()
    },
    "forgetting": ("forgetting", DOWN),
    "backward_transfer": ("backward transfer", UP),
    "forward_transfer": ("forward transfer", UP),
    "nll": ("NLL, nats", DOWN),
    "ece": ("ECE", DOWN),
    "brier": ("Brier", DOWN),
    "r2": ("R2", UP),
    "seconds_total": ("seconds", DOWN),
    "bytes": ("bytes carried", DOWN),
}

Drawings = Mapping[str, bytes]
"""Figures as SVG, by name."""


def figures_of(run: Run) -> Figures:
    """All figures that what is known of a run allows."""
    matrix, score, memory, posterior = run.matrix, score_of(run.results), run.memory, run.posterior
    found = {
        f"{score.key}_matrix": accuracy_figure(matrix, score),
        f"{score.key}_over_time": progress_figure(matrix, score),
        f"{score.key}_lost": losses_figure(lost(matrix, score), score),
    }
    names = run.results.get("class_names")
    if confusion := run.results.get("confusion"):
        found |= {
            "accuracy_of_classes": classes_figure(confusion, names),
            "confusion": confusion_figure(confusion, names),
        }
        found["reliability"] = reliability_figure(run.results["reliability"])
    if on_old := run.results.get("on_old"):
        found["stability_gap"] = gap_figure(on_old)
    if run.results.get("over_stream") and "ece" in run.results:
        found["certainty"] = certainty_figure(run.results["over_stream"])
    last = run.maps[max(run.maps)] if run.maps else None
    found |= figures_of_memory(None if memory is None else memory.exemplars, last, names)
    if posterior is not None and posterior.precision:
        found["posterior"] = posterior_figure(posterior)
    if run.results.get("memory_bytes"):
        found["bytes"] = parts_figure(run.results["memory_bytes"], "bytes")
    found["seconds"] = parts_figure(_seconds(run.results), "seconds")
    return found


def drawn(figures: Figures) -> Drawings:
    """Figures as SVG, without the date."""
    return {name: _svg(figure) for name, figure in figures.items()}


def report(runs: Sequence[Run], drawings: Sequence[Drawings], live: bool = False, reload: int | None = None) -> str:
    """The file.

    Args:
        runs: One or several.
        drawings: What :func:`drawn` gave of the figures of each.
        live: Whether figures can be looked into, which the extra ``inspect`` is needed for.
        reload: Seconds after which a browser reads the page again, of runs that go on.
    """
    page = Page("A run of bayesdual" if len(runs) == 1 else f"{len(runs)} runs of bayesdual", live, reload)
    each = [answers.Drawn(run, _shown(page, run, of_run)) for run, of_run in zip(runs, drawings, strict=True)]
    page.section("How well", _overview(runs), _compared(page, runs), _beside(each, answers.accuracy))
    page.section("What was forgotten, and when", _beside(each, answers.forgotten))
    page.section("What is remembered, and why", _beside(each, answers.remembered))
    page.section("How sure it is", _beside(each, answers.sure))
    page.section("What it cost", _beside(each, answers.cost))
    return page.html()


def _shown(page: Page, run: Run, figures: Drawings) -> Callable[[str, str], str]:
    charts = charts_of(run.results) if page.live else {}
    if page.live and run.maps:
        charts["memory_map"] = [map_chart(run.maps, run.results.get("class_names"))]
    return lambda name, caption: page.figure(figures[name], caption, charts.get(name, ())) if name in figures else ""


def _beside(each: Sequence[answers.Drawn], part: Callable[[answers.Drawn], str]) -> str:
    """What there is to say of each run, side by side where there is room."""
    if len(each) == 1:
        return part(each[0])
    parts = [f"<div>{heading(one.run.name)}{part(one)}</div>" for one in each]
    return f'<div class="runs">{"".join(parts)}</div>'


def _overview(runs: Sequence[Run]) -> str:
    """The measures of each run, the best in bold, beside how far they are from the first run's; and settings."""
    values = [{**run.results, "bytes": sum((run.results.get("memory_bytes") or {}).values()) or None} for run in runs]
    rows: list[list[str | Cell]] = [
        [name, *_compared_cells([of_run.get(key) for of_run in values], better)]
        for key, (name, better) in MEASURES.items()
        if any(of_run.get(key) is not None for of_run in values)
    ]
    names = ["", *(run.name for run in runs)]
    text = table(names, rows)
    if len(runs) > 1:
        text += paragraph("The best in bold; in small, how far from the first run's.")
    if different := differing([run.settings for run in runs]):
        told: list[list[Cell]] = [
            [_last_word(key), *(_last_word(str(run.settings.get(key, "-")), "differs") for run in runs)]
            for key in different
        ]
        text += heading("Settings that differ") + table(names, told)
    for run in runs:
        learned, known = run.results["experiences_learned"], len(run.matrix[0])
        if learned < known:
            text += paragraph(f"{run.name} has learned {learned} of {known} experiences.")
    return text


def _compared_cells(values: Sequence[float | None], better: int) -> list[Cell]:
    known = [value for value in values if value is not None and not math.isnan(value)]
    best = (max(known) if better == UP else min(known)) if len(set(known)) > 1 else None
    cells = []
    for place, value in enumerate(values):
        if value is None:
            cells.append(Cell("-"))
            continue
        first = values[0]
        gap = "" if not place or first is None or value == first else f"{_number(value - first, '+')}"
        cells.append(Cell(_number(value), repr(value), gap, "best" if value == best else ""))
    return cells


def _compared(page: Page, runs: Sequence[Run]) -> str:
    score = score_of(runs[0].results)
    if len(runs) == 1 or {score_of(run.results) for run in runs} != {score}:
        return ""
    names = unique([run.name for run in runs])
    matrices = {name: run.matrix for name, run in zip(names, runs, strict=True)}
    svg = _svg(compared_figure({name: seen_means(matrix) for name, matrix in matrices.items()}, score))
    caption = f"{capital(score.name)}, mean of the experiences seen, after each."
    return page.figure(svg, caption, [compared_chart(matrices)] if score == ACCURACY else [])


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all configurations, as far as these are known."""
    known = [values for values in settings if values]
    keys = dict.fromkeys(key for values in known for key in values if key != "run_dir")
    return [key for key in keys if len({str(values.get(key)) for values in known}) > 1]


def _last_word(dotted: str, kind: str = "") -> Cell:
    """The last word of a dotted name; a number is left as it is."""
    last = dotted.rpartition(".")[2]
    return Cell(dotted if not last or last[0].isdigit() else last, dotted, kind=kind)


def unique(names: Sequence[str]) -> list[str]:
    """Names with their places where one comes twice."""
    return [f"{name} ({k})" if names.count(name) > 1 else name for k, name in enumerate(names, start=1)]


def _seconds(results: Mapping[str, Any]) -> dict[str, float]:
    return {name: results[f"seconds_{name}"] for name in ("training", "evaluation", "memory")}


def _number(value: float, sign: str = "") -> str:
    return (
        f"{value:{sign},}"
        if isinstance(value, int)
        else f"{value:{sign}.4f}"
        if abs(value) < 100
        else f"{value:{sign},.1f}"
    )


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")  # it is laid out: what is drawn of it next need not do so again
    return buffer.getvalue()
