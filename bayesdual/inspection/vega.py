"""Vega-Lite specifications as plain values: what all charts of the page have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bayesdual.inspection.figures import WITH_NUMBERS

Chart = dict[str, Any]
"""A Vega-Lite specification."""

SHARE = {"domain": [0, 1.03]}  # with room for the points at 1
CONFIG = {
    "font": "system-ui, sans-serif",
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "grid": False},
    "legend": {"labelFontSize": 12, "title": None, "orient": "top", "columns": 3, "symbolOpacity": 1},
    "view": {"stroke": None},
}
ZOOM = {
    "name": "view",
    "bind": "scales",
    "select": {
        "type": "interval",
        "zoom": "wheel![event.shiftKey]",
        "translate": "[pointerdown[event.shiftKey], window:pointerup] > window:pointermove!",
    },
}


def chart(points: Sequence[Mapping[str, Any]], place: Chart, layers: Sequence[Chart], height: int) -> Chart:
    """As wide as there is room."""
    return {
        "data": {"values": list(points)},
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "encoding": place,
        "layer": list(layers),
        "config": CONFIG,
    }


def field_of(name: str, kind: str = "quantitative", **rest: Any) -> Chart:
    return {"field": name, "type": kind, **rest}


def after_experience(learned: int) -> Chart:
    ticks = {"values": list(range(1, learned + 1))} if learned <= WITH_NUMBERS else {}
    room = 0.03 * max(1, learned - 1)  # for the first and the last point
    return field_of(
        "after",
        title="after experience",
        scale={"domain": [1 - room, learned + room], "nice": False},
        axis={"format": "d", **ticks},
    )


def exactly(*names: str) -> list[Chart]:
    """What is shown of what is pointed at: as names are, so that no digit is rounded away."""
    return [field_of(name, "nominal") for name in names]
