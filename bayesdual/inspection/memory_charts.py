"""The memory maps of a run as a chart with a slider through the experiences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bayesdual.inspection.figures import KEPT_COLOR
from bayesdual.inspection.memory_figures import (
    OTHERS_COLOR,
    POINTS,
    drawn_rows,
    label_of,
    leverage_floor,
    residual_name,
)
from bayesdual.inspection.vega import Chart, chart, exactly, field_of
from bayesdual.memory import MemoryMap

WHOLE = {"domain": [-0.02, 1.02], "nice": False}
LEAST = 300  # points of an experience


def map_chart(maps: Mapping[int, MemoryMap], class_names: Sequence[str] | None = None) -> Chart:
    """Residual against leverage of the examples of each experience; of many a part, as the figure has them.

    Args:
        maps: By the number of the experience, from 1; at least one.
        class_names: By label.
    """
    most = max(LEAST, 2 * POINTS // len(maps))
    points = [point for k, mapped in maps.items() for point in _points(k, mapped, most, class_names)]
    last = max(maps)
    slider = {"input": "range", "min": min(maps), "max": last, "step": 1, "name": "experience "}
    numbers = maps[last].y.is_floating_point()
    place: Chart = {
        "x": field_of(
            "residual", title=residual_name(maps[last]), scale={} if numbers else WHOLE, axis={"tickCount": 6}
        ),
        "y": field_of("drawn", title="leverage (log)", scale={"type": "log"}),
        "color": field_of("kept", "nominal", scale={"domain": ["no", "yes"], "range": [OTHERS_COLOR, KEPT_COLOR]}),
        "tooltip": exactly("class", "residual", "leverage", "kept", "index"),
    }
    place["color"]["legend"] = {"title": "kept", "titleOrient": "left"}
    layers = [  # those kept above the others
        {"mark": {"type": "circle", "size": size, "opacity": 0.8}, "transform": [{"filter": f"datum.kept == '{kept}'"}]}
        for kept, size in (("no", 14), ("yes", 60))
    ]
    drawn = chart(points, place, layers, 280)
    if len(maps) > 1:
        drawn["params"] = [{"name": "shown", "value": last, "bind": slider}]
        drawn["transform"] = [{"filter": "datum.experience == shown"}]
    return drawn


def _points(k: int, mapped: MemoryMap, most: int, class_names: Sequence[str] | None) -> list[dict[str, object]]:
    floor = leverage_floor(mapped)
    return [
        {
            "experience": k,
            "class": label_of(mapped.y[i], class_names),
            "residual": float(mapped.residuals[i]),
            "leverage": float(mapped.leverages[i]),
            "drawn": max(floor, float(mapped.leverages[i])),
            "kept": "yes" if mapped.kept[i] else "no",
            "index": int(mapped.index[i]),
        }
        for i in drawn_rows(mapped, most).tolist()
    ]
