"""The verdict says what the matrix says."""

import pytest

from bayesdual.inspection import lost, verdict


def test_what_is_lost_is_lost_since_the_best():
    matrix = [[0.5, 0.0], [0.9, 0.8]]
    assert lost(matrix) == [0.0, 0.0]
    assert lost([[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.6, 0.9, 1.0]]) == pytest.approx([0.3, 0.0, 0.0])


def test_it_says_how_much_is_kept_and_where_most_was_lost():
    text = verdict([[0.9, 0.0, 0.0], [0.7, 0.8, 0.0], [0.6, 0.5, 1.0]])
    assert (
        text == "It kept 77.8% of the accuracy that it had on each experience at its best; most was lost on "
        "experience 1 (0.300)."
    )
    assert "nothing was lost" in verdict([[0.9, 0.0], [0.9, 0.8]])
    assert "nothing yet to forget" in verdict([[0.9, 0.0]])
