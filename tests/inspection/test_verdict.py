"""The verdict says what the matrix says."""

import pytest

from bayesdual.inspection import lost, verdict


def test_what_is_lost_is_lost_since_the_best():
    assert lost([[0.5, 0.0], [0.9, 0.8]]) == [0.0, 0.0]
    assert lost([[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.6, 0.9, 1.0]]) == pytest.approx([0.3, 0.0, 0.0])


def test_it_says_how_much_is_kept_and_where_most_was_lost():
    text = verdict([[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.6, 0.5, 1.0]])
    assert text == "kept 77.8% of its best on each experience, lost most on experience 1 (0.300)"
    assert len(text) < 80
    assert verdict([[0.9, 0.0], [0.9, 0.8]]) == "kept 100.0% of its best on each experience, lost nothing"
    assert "nothing yet to forget" in verdict([[0.9, 0.0]])
