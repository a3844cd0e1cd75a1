"""Charts of a run that can be looked into: the numbers of the figures as Vega-Lite, which the reader's browser draws.

Each is a specification of plain values. What is pointed at is shown to the last digit; with the shift key held, the
wheel zooms and the pointer moves what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bayesdual import measures
from bayesdual.inspection.figures import (
    GROUP_COLORS,
    LOST_COLOR,
    MEAN,
    WITH_NAMES,
    WITH_NUMBERS,
    groups_of,
    known_mean,
    seen_means,
    span,
)
from bayesdual.inspection.vega import SHARE, ZOOM, Chart, after_experience, chart, exactly, field_of
from bayesdual.inspection.verdict import lost

Charts = dict[str, list[Chart]]
"""By the name of the figure that shows the same."""

HIGH = 36  # pixels of a row of the heat map


def charts_of(results: Mapping[str, Any]) -> Charts:
    """Charts of the results of a run, where there is something to look into; scores of numbers have figures only."""
    found: Charts = {}
    if "accuracy_matrix" in results:
        matrix = results["accuracy_matrix"]
        found = {
            "accuracy_matrix": [matrix_chart(matrix)],
            "accuracy_over_time": [progress_chart(matrix)],
            "accuracy_lost": [losses_chart(matrix)],
        }
    if found and (over_stream := results.get("over_stream")):
        named = {"nll": "NLL, nats (log)", "ece": "ECE", "entropy": "entropy, nats"}
        found["certainty"] = [certainty_chart(over_stream, key, name) for key, name in named.items()]
    if parts := results.get("memory_bytes"):
        found["bytes"] = [parts_chart(parts, "bytes")]
    return found


def matrix_chart(matrix: measures.Matrix) -> Chart:
    """The accuracy matrix as a heat map; what was not learned yet is left empty."""
    n, learned = len(matrix[0]), len(matrix)
    cells = [
        {"after": i + 1, "experience": j + 1, "accuracy": matrix[i][j]}
        for i in range(learned)
        for j in range(i + 1)
        if not math.isnan(matrix[i][j])
    ]
    few = n <= WITH_NUMBERS
    axis = experience_axis(n)
    place = {
        "x": field_of("experience", "ordinal", title="accuracy on experience", axis=axis),
        "y": field_of("after", "ordinal", title="after experience", axis=axis),
        "tooltip": exactly("after", "experience", "accuracy"),
    }
    color = field_of("accuracy", scale={"scheme": "viridis", "domain": [0, 1]}, legend=None if few else {})
    layers: list[Chart] = [{"mark": "rect", "encoding": {"color": color}}]
    if few:
        ink = {"condition": {"test": "datum.accuracy < 0.6", "value": "white"}, "value": "black"}
        text = field_of("accuracy", format=".2f")
        layers.append({"mark": {"type": "text", "fontSize": 12}, "encoding": {"text": text, "color": ink}})
    return chart(cells, place, layers, 60 + HIGH * min(learned, 10))


def experience_axis(n: int) -> dict[str, Any]:
    """Of many experiences every tenth is numbered."""
    return {"labelAngle": 0} if n <= WITH_NUMBERS else {"labelAngle": 0, "values": list(range(10, n + 1, 10))}


def progress_chart(matrix: measures.Matrix) -> Chart:
    """How the accuracy of each experience goes on once it is learned, and the mean over those seen.

    Of many experiences, means of several.
    """
    learned = len(matrix)
    few = learned <= WITH_NAMES
    points = [
        {"after": i + 1, "accuracy": a, "of": f"experience{span(group)}"}
        for group in groups_of(learned, 1 if few else -(-learned // 10))
        for i in range(group[0], learned)
        if not math.isnan(a := known_mean(matrix[i][group[0] : min(group[-1], i) + 1]))
    ]
    means = [{"after": i + 1, "accuracy": a, "of": MEAN} for i, a in enumerate(seen_means(matrix))]
    place = {
        "x": after_experience(learned),
        "y": field_of("accuracy", scale=SHARE),
        "tooltip": exactly("of", "after", "accuracy"),
    }
    of = field_of(
        "of", "nominal", sort=None, scale={"scheme": "viridis"}, legend={"symbolType": "stroke", "symbolStrokeWidth": 3}
    )
    line = {"type": "line", "opacity": 0.7, "point": {"size": 40, "opacity": 1} if few else False}
    bold = {"type": "line", "color": "black", "strokeWidth": 3, "point": {"color": "black"}}
    label = {"type": "text", "align": "right", "dy": 18, "fontSize": 12, "text": MEAN}
    layers: list[Chart] = [
        {"mark": line, "encoding": {"color": of}, "params": [ZOOM]},
        {"data": {"values": means}, "mark": bold},
        {"data": {"values": means[-1:]}, "mark": label},
    ]
    return chart(points, place, layers, 280)


def losses_chart(matrix: measures.Matrix) -> Chart:
    """How much accuracy on each experience is gone since it was best."""
    bars = [{"experience": j + 1, "lost": a} for j, a in enumerate(lost(matrix)) if not math.isnan(a)]
    top = max([0.1, *(1.15 * bar["lost"] for bar in bars)])
    place = {
        "x": field_of("experience", "ordinal", axis=experience_axis(len(matrix))),
        "y": field_of("lost", title="accuracy lost", scale={"domain": [0, top]}),
        "tooltip": exactly("experience", "lost"),
    }
    layers: list[Chart] = [{"mark": {"type": "bar", "color": LOST_COLOR}}]
    if len(bars) <= WITH_NUMBERS:
        text = field_of("lost", format=".3f")
        layers.append({"mark": {"type": "text", "dy": -8, "fontSize": 12}, "encoding": {"text": text}})
    return chart(bars, place, layers, 200)


def certainty_chart(over_stream: Sequence[Mapping[str, Any]], key: str, name: str) -> Chart:
    """A measure of old, new and unseen experiences after each.

    Args:
        over_stream: What :class:`bayesdual.learner.History` has of each evaluation.
        key: The measure's key there; the NLL has a logarithmic scale.
        name: Its name.
    """
    points = [
        {"after": row["after"], "of": group, key: row[group][key]}
        for row in over_stream
        for group in GROUP_COLORS
        if group in row and key in row[group] and (key != "nll" or row[group][key] > 0)
    ]
    shown = {group: color for group, color in GROUP_COLORS.items() if any(point["of"] == group for point in points)}
    highest = max((point[key] for point in points), default=1.0)
    place = {
        "x": after_experience(len(over_stream)),
        "y": field_of(key, title=name, scale={"type": "log"} if key == "nll" else {"domain": [0, 1.05 * highest]}),
        "color": field_of("of", "nominal", scale={"domain": [*shown], "range": [*shown.values()]}),
        "tooltip": exactly("of", "after", key),
    }
    return chart(points, place, [{"mark": {"type": "line", "point": True}, "params": [ZOOM]}], 150)


def parts_chart(parts: Mapping[str, float], unit: str) -> Chart:
    """What a whole is made of, the largest part first."""
    bars = [{"part": name, unit: value} for name, value in sorted(parts.items(), key=lambda item: -item[1])]
    place = {
        "x": field_of(unit, scale={"domain": [0, 1.3 * max(parts.values())]}, axis={"tickCount": 4, "format": "~s"}),
        "y": field_of("part", "nominal", sort=None, title=None),
        "tooltip": exactly("part", unit),
    }
    text = {"type": "text", "align": "left", "dx": 4, "fontSize": 12}
    layers: list[Chart] = [
        {"mark": {"type": "bar", "color": "#5b6770"}},
        {"mark": text, "encoding": {"text": field_of(unit, format=",")}},
    ]
    return chart(bars, place, layers, 60 + 24 * len(bars))


def compared_chart(matrices: Mapping[str, measures.Matrix]) -> Chart:
    """The mean accuracy of the experiences seen, after each, of several runs."""
    points = [
        {"run": name, "after": i + 1, "accuracy": a}
        for name, matrix in matrices.items()
        for i, a in enumerate(seen_means(matrix))
    ]
    place = {
        "x": after_experience(max(map(len, matrices.values()))),
        "y": field_of("accuracy", title=f"accuracy, {MEAN}", scale=SHARE),
        "color": field_of("run", "nominal", sort=None, scale={"scheme": "viridis"}, legend={"columns": 1}),
        "tooltip": exactly("run", "after", "accuracy"),
    }
    return chart(points, place, [{"mark": {"type": "line", "point": True}, "params": [ZOOM]}], 260)
