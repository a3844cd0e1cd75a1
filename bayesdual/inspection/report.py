"""One HTML file about runs: how well, what was forgotten and when, what is remembered, how sure it is, what it cost.

It holds its figures (as SVG, so that they can be enlarged) and asks no other host for anything.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from bayesdual.inspection.figures import (
    Figures,
    accuracy_figure,
    certainty_figure,
    is_images,
    losses_figure,
    memory_figure,
    name_of,
    parts_figure,
    posterior_figure,
    progress_figure,
)
from bayesdual.inspection.runs import Run
from bayesdual.inspection.tables import score_of
from bayesdual.inspection.verdict import lost, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
td.differs { background: #fff3d6; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #555; font-size: .9rem; }
"""
MEASURES = {
    "forgetting": "forgetting",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "nll": "NLL, nats",
    "ece": "ECE",
    "r2": "R2",
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
    if run.results.get("over_stream") and "ece" in run.results:
        found["certainty"] = certainty_figure(run.results["over_stream"])
    if memory is not None and memory.exemplars is not None and is_images(memory.exemplars.x):
        found["memory"] = memory_figure(memory.exemplars, run.results.get("class_names"))
    if posterior is not None and posterior.precision:
        found["posterior"] = posterior_figure(posterior)
    if run.results.get("memory_bytes"):
        found["bytes"] = parts_figure(run.results["memory_bytes"], "bytes")
    found["seconds"] = parts_figure(_seconds(run.results), "seconds")
    return found


def drawn(figures: Figures) -> Drawings:
    """Figures as SVG, without the date."""
    return {name: _svg(figure) for name, figure in figures.items()}


def report(runs: Sequence[Run], drawings: Sequence[Drawings]) -> str:
    """The file.

    Args:
        runs: One or several.
        drawings: What :func:`drawn` gave of the figures of each.
    """
    title = "A run" if len(runs) == 1 else f"{len(runs)} runs"
    body = [f"<h1>{title} of bayesdual</h1>", _section("How well", _overview(runs))]
    for run, of_run in zip(runs, drawings, strict=True):
        parts = _parts(run, of_run)
        if len(runs) > 1:
            body.append(f"<h2>{escape(run.name)}</h2>")
            body += [f"<h3>{name}</h3>{text}" for name, text in parts.items()]
        else:
            body += [_section(name, text) for name, text in parts.items()]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{meta}<title>{title} of bayesdual</title><style>{STYLE}</style></head>"
    return f'<!doctype html><html lang="en">{head}<body>{"".join(body)}</body></html>\n'


def _parts(run: Run, figures: Drawings) -> dict[str, str]:
    """The sections about one run, by their headings."""
    results, memory, posterior = run.results, run.memory, run.posterior
    matrix, score = run.matrix, score_of(results)
    key, name = score.key, _capital(score.name)
    accuracy = _figure(figures[f"{key}_matrix"], f"{name} on each experience (columns) after each (rows).")
    forgotten = (
        f"<p>{escape(_capital(verdict(matrix, score)))}.</p>"
        + _figure(figures[f"{key}_over_time"], f"{name} on each experience once it is learned, and their mean.")
        + _figure(figures[f"{key}_lost"], f"{name} on each experience, how much worse than at its best.")
    )
    if memory is None or memory.exemplars is None:
        remembered = "<p>No example is kept.</p>"
    else:
        y = memory.exemplars.y
        classes = "" if y.is_floating_point() else f" of {len(y.unique())} classes"
        remembered = f"<p>{len(memory)} exemplars{classes} stand for {memory.examples_seen:,} examples seen.</p>"
        if "memory" in figures:
            caption = "The first exemplars of each class; above each its score, how much the posterior relies on it."
            remembered += _figure(figures["memory"], caption)
        elif classes:
            remembered += _weights(memory.exemplars, results.get("class_names"))
    ece = f", ECE {results['ece']:.4f}" if "ece" in results else ""
    sure = f"<p>NLL {results['nll']:.4f} nats an example{ece}, over all of the stream.</p>"
    if "certainty" in figures:
        caption = "How sure, and how rightly, of experiences that are old, new and unseen, after each."
        sure += _figure(figures["certainty"], caption)
    if "posterior" in figures and posterior is not None:
        marks = "" if posterior.knows_data else " The data have left no mark on it."
        sure += _figure(figures["posterior"], f"The posterior: standard deviations by parameter, middle half.{marks}")
    cost = _figure(figures["seconds"], f"Seconds, {results['seconds_total']:.1f} in all.")
    if "bytes" in figures:
        total = sum(results["memory_bytes"].values())
        cost += _figure(figures["bytes"], f"Bytes carried to the next experience, {total:,} in all.")
    return {
        name: accuracy,
        "What was forgotten, and when": forgotten,
        "What is remembered": remembered,
        "How sure it is": sure,
        "What it cost": cost,
    }


def _overview(runs: Sequence[Run]) -> str:
    different = differing([run.settings for run in runs])
    rows = []
    scores = {f"average_{score.key}": f"average {score.name}" for run in runs for score in [score_of(run.results)]}
    known = scores | {key: name for key, name in MEASURES.items() if any(key in run.results for run in runs)}
    for run in runs:
        cells = [_number(run.results.get(key)) for key in known]
        rows.append([run.name, *cells, *(str(run.settings.get(key, "-")) for key in different)])
    names = [key.rpartition(".")[2] for key in different]
    marked = range(1 + len(known), 1 + len(known) + len(different))
    text = _table(["run", *known.values(), *names], rows, marked)
    done = [run for run in runs if run.results["experiences_learned"] < len(run.matrix[0])]
    text += "".join(
        f"<p>{escape(run.name)} has learned {run.results['experiences_learned']} of "
        f"{len(run.matrix[0])} experiences.</p>"
        for run in done
    )
    return text


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all configurations, as far as these are known."""
    known = [values for values in settings if values]
    keys = dict.fromkeys(key for values in known for key in values)
    return [key for key in keys if len({str(values.get(key)) for values in known}) > 1]


def _weights(exemplars: Any, class_names: Sequence[str] | None) -> str:
    classes = exemplars.y.unique().tolist()
    of_class = [exemplars[exemplars.y == c] for c in classes]
    rows = [
        [name_of(c, class_names), str(len(z)), f"{float(z.weights.sum()):,.0f}"]
        for c, z in zip(classes, of_class, strict=True)
    ]
    return _table(["class", "exemplars", "examples that they stand for"], rows)


def _seconds(results: Mapping[str, Any]) -> dict[str, float]:
    return {name: results[f"seconds_{name}"] for name in ("training", "evaluation", "memory")}


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _section(name: str, text: str) -> str:
    return f"<section><h2>{name}</h2>{text}</section>"


def _table(header: Iterable[str], rows: Iterable[Sequence[str]], marked: Iterable[int] = ()) -> str:
    places = set(marked)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = [
        "".join(
            f'<td class="differs">{escape(cell)}</td>' if i in places else f"<td>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        for row in rows
    ]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _figure(svg: bytes, caption: str) -> str:
    data, text = base64.b64encode(svg).decode(), escape(caption)
    return f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
