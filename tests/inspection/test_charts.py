"""Charts hold the numbers of the results to the last digit, and are what Vega-Lite takes."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from bayesdual.inspection.charts import charts_of, compared_chart, matrix_chart, parts_chart, progress_chart
from bayesdual.inspection.figures import GROUP_COLORS, KEPT_COLOR, LOST_COLOR, shade
from bayesdual.inspection.memory_charts import map_chart
from bayesdual.memory import MemoryMap

MATRIX = [[1 / 3, float("nan"), 0.0], [0.7 - 1e-16, 2 / 3, 0.2], [0.1 + 0.2, 1 / 7, 1.0]]
GROUPS = {"new": {"nll": 1 / 9, "ece": 0.1, "entropy": 1 / 11}, "unseen": {"nll": 6.0, "ece": 0.9, "entropy": 0.5}}
RESULTS = {
    "accuracy_matrix": MATRIX,
    "over_stream": [{"after": 1, **GROUPS}],
    "memory_bytes": {"a": 3, "b": 70},
    "ece": 0.1,
}


def values(chart):
    return chart["data"]["values"]


def test_what_is_drawn_is_what_the_results_have_to_the_last_digit():
    charts = json.loads(json.dumps(charts_of(RESULTS), allow_nan=False))  # as they stand on a page
    cells = {(c["after"], c["experience"]): c["accuracy"] for c in values(charts["accuracy_matrix"][0])}
    assert cells == {(i + 1, j + 1): MATRIX[i][j] for i in range(3) for j in range(i + 1)}
    lines = {(p["of"], p["after"]): p["accuracy"] for p in values(charts["accuracy_over_time"][0])}
    assert lines == {(f"experience {j}", i): a for (i, j), a in cells.items()}
    means = values(charts["accuracy_over_time"][0]["layer"][1])
    assert [m["accuracy"] for m in means] == [1 / 3, (0.7 - 1e-16 + 2 / 3) / 2, (0.1 + 0.2 + 1 / 7 + 1.0) / 3]
    assert [b["lost"] for b in values(charts["accuracy_lost"][0])] == [0.7 - 1e-16 - (0.1 + 0.2), 2 / 3 - 1 / 7, 0]
    for key, chart in zip(("nll", "ece", "entropy"), charts["certainty"], strict=True):
        assert {p["of"]: p[key] for p in values(chart)} == {group: of[key] for group, of in GROUPS.items()}
    assert values(charts["bytes"][0]) == [{"part": "b", "bytes": 70}, {"part": "a", "bytes": 3}]


def test_a_hundred_experiences_are_drawn_without_numbers_and_names():
    matrix = [[0.5] * 100 for _ in range(100)]
    assert len(matrix_chart(matrix)["layer"]) == 1 and len(matrix_chart(MATRIX)["layer"]) == 2
    lines = values(progress_chart(matrix))
    assert len({point["of"] for point in lines}) == 10 and lines[0]["of"] == "experiences 1-10"
    assert matrix_chart(matrix)["height"] < 600


def test_the_slider_of_the_map_goes_through_the_experiences():
    def of(residual):
        one = torch.tensor([residual])
        return MemoryMap(torch.tensor([1]), one, one, one > 0.5, torch.tensor([7]), *3 * [torch.zeros(0)])

    chart = map_chart({2: of(0.3), 4: of(0.9)}, ["cat", "dog"])
    points = [(p["experience"], p["class"], p["residual"], p["kept"], p["index"]) for p in values(chart)]
    assert points == [(2, "dog", float(torch.tensor(0.3)), "no", 7), (4, "dog", float(torch.tensor(0.9)), "yes", 7)]
    (slider,) = chart["params"]
    assert (slider["value"], slider["bind"]["min"], slider["bind"]["max"]) == (4, 2, 4)


def test_bars_begin_at_nothing():
    assert parts_chart({"a": 5.0}, "s")["encoding"]["x"]["scale"]["domain"][0] == 0
    assert charts_of(RESULTS)["accuracy_lost"][0]["encoding"]["y"]["scale"]["domain"][0] == 0


def test_runs_of_different_length_are_compared_by_the_number_of_experiences():
    points = values(compared_chart({"a": MATRIX, "b": MATRIX[:2]}))
    assert [(p["run"], p["after"]) for p in points] == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]


DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
"""What is seen of linear red, green and blue; Machado, Oliveira and Fernandes, IEEE TVCG 2009, table of severity 1."""


def seen(color, matrix):
    """The colour in CIELAB, where distances are those that are seen."""
    rgb = np.asarray(to_rgb(color))
    linear = np.clip(np.asarray(matrix) @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.asarray(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("matrix", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all", "deuteranopia", "protanopia"])
@pytest.mark.parametrize(
    "colors", [[*GROUP_COLORS.values()], [LOST_COLOR, KEPT_COLOR], [shade(j, 5) for j in range(5)]]
)
def test_colours_are_told_apart_by_the_colour_blind(colors, matrix):
    apart = [np.linalg.norm(seen(a, matrix) - seen(b, matrix)) for a, b in combinations(colors, 2)]
    assert min(apart) > 15, "a just noticeable difference is about 2"
