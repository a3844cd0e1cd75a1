"""The verdict says what the matrix says."""

from math import nan

import pytest

from bayesdual.inspection import classes_lost, lost, verdict
from bayesdual.inspection.verdict import lost_since


def test_what_is_lost_is_lost_since_the_best():
    assert lost([[0.5, 0.0], [0.9, 0.8]]) == [0.0, 0.0]
    assert lost([[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.6, 0.9, 1.0]]) == pytest.approx([0.3, 0.0, 0.0])


def test_it_says_how_much_is_kept_and_where_most_was_lost():
    text = verdict([[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.6, 0.5, 1.0]])
    assert text == "kept 77.8% of its best; lost most on experience 1 (0.300)"
    assert len(text) < 80
    assert verdict([[0.9, 0.0], [0.9, 0.8]]) == "kept 100.0% of its best; lost nothing"
    assert "nothing yet to forget" in verdict([[0.9, 0.0]])


def test_it_names_the_classes_that_lost_most_since_they_were_best():
    rows = [[1.0, 0.9, nan, 0.0], [0.7, 0.9, nan, 0.8], [0.8, 0.4, nan, 0.9]]
    assert classes_lost(rows) == ["1", "0"] and classes_lost(rows, ["a", "b", "c", "d"]) == ["b", "a"]
    assert classes_lost(rows[:1]) == classes_lost([]) == []
    text = verdict([[0.9, 0.0], [0.5, 1.0]], classes=["4", "6"])
    assert text == "kept 78.9% of its best; lost most on experience 1 (0.400); of the classes, most on 4 and 6"


def test_what_was_lost_since_the_experience_before_is_told():
    assert lost_since([[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.75, 0.6, 1.0]]) == {1: pytest.approx(0.2)}
    assert lost_since([[0.9]]) == {}
