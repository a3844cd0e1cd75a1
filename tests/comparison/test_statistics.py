"""The numbers of the tables, by hand: gap closure, the exact paired test, and what is said of them."""

import csv
import itertools
import json
from io import StringIO

import pytest

from bayesdual.comparison import (
    Entry,
    blocks_of,
    comma_separated,
    comparison_figure,
    markdown,
    rows_of,
    short,
    sign_flip_p,
    smallest_p,
)


def result(accuracy, seconds=5.0, rows=5):
    measures = {"average_accuracy": accuracy, "forgetting": 0.1, "nll": 1.0, "ece": 0.1, "exemplars": 20}
    measures |= {"memory_bytes": {"inputs": 1280, "labels": 20}}
    matrix = [[accuracy] * 5] * rows
    return measures | {"seconds_total": seconds, "seconds_evaluation": 1.0, "accuracy_matrix": matrix}


def entry(method, role, accuracies, benchmark="b", **more):
    results = {s: None if a is None else result(a, rows=1 if role == "upper" else 5) for s, a in enumerate(accuracies)}
    settings, at_edge, code = more.get("settings", {}), more.get("at_edge", False), more.get("code", "")
    return Entry(benchmark, method, role, settings, at_edge, 0, results, code)


def test_gap_closure_and_the_paired_test_are_what_one_computes_by_hand():
    ours, best, weak = [0.80, 0.82, 0.87], [0.78, 0.79, 0.80], [0.9, 0.1, 0.1]
    entries = [entry("ours", "ours", ours), entry("A", "baseline", weak), entry("B", "baseline", best)]
    entries += [entry("joint", "upper", [0.9, 0.91, 0.89]), entry("naive", "lower", [0.95, 0.95, 0.95])]
    row = rows_of(entries)[0]
    assert row["best_baseline"] == "B", "neither the bound nor a single lucky run"
    assert row["average_accuracy"] == pytest.approx(0.83)
    assert row["average_accuracy_sd"] == pytest.approx(0.036056, 1e-4)
    assert row["gap_closure"] == pytest.approx((0.83 - 0.79) / (0.90 - 0.79))
    # d = .02, .03, .07: mean .04, sd .026458; of the 8 sums of +-.02 +-.03 +-.07 only .12 and -.12 are as far from 0
    assert row["difference"] == pytest.approx(0.04) and row["difference_sd"] == pytest.approx(0.026458, 1e-4)
    assert row["pairs_by_seed"] == {0: (0.80, 0.78), 1: (0.82, 0.79), 2: (0.87, 0.80)}
    assert row["difference_p"] == row["difference_p_smallest"] == 0.25
    assert row["average_accuracy_by_seed"] == {0: 0.80, 1: 0.82, 2: 0.87}
    assert row["seconds"] == 4.0, "evaluation is not training"


def test_what_cannot_be_said_is_left_out():
    entries = [entry("ours", "ours", [0.8]), entry("A", "baseline", [0.7]), entry("joint", "upper", [0.9])]
    row = rows_of(entries)[0]
    assert row["average_accuracy_sd"] is None and row["difference_sd"] is None and row["gap_closure"] is not None
    assert row["difference_p"] == 1.0, "one pair says nothing"
    assert rows_of(entries[:2])[0]["gap_closure"] is None, "there is no upper bound"
    worse = [entry("ours", "ours", [0.8]), entry("A", "baseline", [0.95]), entry("joint", "upper", [0.9])]
    assert rows_of(worse)[0]["gap_closure"] is None, "joint training is no upper bound here"
    assert rows_of(entries)[2]["forgetting"] is None, "one experience"
    partly = rows_of([entry("ours", "ours", [0.8, None, 0.9]), entry("A", "baseline", [None, 0.7, 0.8])])
    assert partly[0]["pairs_by_seed"] == {2: (0.9, 0.8)} and partly[0]["difference"] == pytest.approx(0.1)
    assert "[2]" in markdown(blocks_of(partly)) and "others diverged" in markdown(blocks_of(partly))
    assert "diverged" in markdown(blocks_of(rows_of([entry("ours", "ours", [None, None])])))


def test_several_benchmarks_begin_with_the_accuracies():
    entries = [
        e
        for b in ("one", "two", "three", "four", "five")
        for e in (entry("ours", "ours", [0.8, 0.9], b), entry("A|B", "baseline", [0.7, 0.7], b))
    ]
    blocks = blocks_of(rows_of(entries))
    assert [block.title for block in blocks] == ["average accuracy"] * 2 + ["one", "two", "three", "four", "five"]
    assert blocks[0].header == ["method", "one", "two", "three", "four"] and blocks[1].header == ["method", "five"]
    assert blocks[0].lines[0] == ["ours", *[".850 ± .071"] * 4] and blocks[0].lines[2] == ["p", *["0.5"] * 4]
    assert blocks[0].notes[0].endswith("against the best baseline of each; 2 seeds give 0.5 at the least")
    text = markdown(blocks)
    assert "A\\|B" in text and text.count("A|B") == 5  # in the sentences below the tables
    assert len(comma_separated(rows_of(entries)).splitlines()) == 11
    assert len(comparison_figure(entries).axes) == 6


def test_numbers_are_short():
    assert [short(x) for x in (0.5, -0.0123, 0.9996, 1.25, 0.0)] == [".500", "-.012", "1.000", "1.250", ".000"]


# d, and p counted by hand: signs whose sum is at least as far from 0 as that of d, in shares of all 2^n
EXACT = [
    ([0.1], 2 / 2),
    ([0.1, 0.2], 2 / 4),  # .3, -.3
    ([0.1, -0.2], 4 / 4),  # -.1 is nearest to 0
    ([0.3, 0.2, -0.1], 4 / 8),  # .4 and .6, and their negatives
    ([0.1, 0.1, 0.1, 0.1], 2 / 16),
    ([0.2, 0.2, -0.1, 0.1], 6 / 16),  # sums of 0.4 or 0.6: ++-+ ++++ +++-, and their negatives
    ([0.0, 0.0], 1.0),
    ([0.1, 0.0], 1.0),  # flipping a difference of 0 changes nothing
    ([1, 2, 3, 4, 5, 6], 2 / 64),
]


@pytest.mark.parametrize(("differences", "p"), EXACT)
def test_the_exact_p_is_what_one_counts_by_hand(differences, p):
    assert sign_flip_p(differences) == pytest.approx(p)
    assert sign_flip_p([-d for d in differences]) == pytest.approx(p), "two-sided"
    assert smallest_p(len(differences)) <= sign_flip_p(differences) <= 1


def test_the_exact_p_counts_all_signs_of_odd_and_even_numbers_of_pairs():
    for n in (5, 8):
        d = [((7 * i) % 5 - 1.3) / 10 for i in range(n)]
        sums = [sum(s * x for s, x in zip(signs, d, strict=True)) for signs in itertools.product((1, -1), repeat=n)]
        expected = sum(abs(total) >= abs(sum(d)) - 1e-12 for total in sums) / 2**n
        assert 2 / 2**n < expected < 1 and sign_flip_p(d) == pytest.approx(expected)
    assert sign_flip_p([0.1] * 30) == pytest.approx(2 / 2**30)


def test_a_lead_is_said_with_every_seed_and_the_smallest_p_that_there_can_be():
    three = [entry("ours", "ours", [0.80, 0.82, 0.87]), entry("B", "baseline", [0.78, 0.79, 0.80])]
    text = markdown(blocks_of(rows_of(three)))
    assert (
        "ours - B, the best baseline: +.040 ± .026 (seeds 0, 1, 2: .800 - .780, .820 - .790, .870 - .800); "
        "exact paired sign-flip test: p = 0.25 (3 seeds: the smallest possible is 0.25)"
    ) in text
    six = [entry("ours", "ours", [0.8] * 6), entry("B", "baseline", [0.7] * 6)]
    text = markdown(blocks_of(rows_of(six)))
    assert "p = 0.0312" in text and "smallest" not in text


def test_every_table_says_which_code_made_its_rows():
    old, new = "bayesdual 0.1.0 (code aaaa)", "bayesdual 0.2.0 (code bbbb)"
    same = [entry("ours", "ours", [0.8], code=new), entry("B", "baseline", [0.7], code=new)]
    assert f"\nmade by {new}\n" in markdown(blocks_of(rows_of(same)))
    mixed = [entry("ours", "ours", [0.8], code=new), entry("B", "baseline", [0.7], code=old)]
    assert f"made by {new}: ours; {old}: B\n" in markdown(blocks_of(rows_of(mixed)))
    rows = list(csv.DictReader(StringIO(comma_separated(rows_of(mixed)))))
    assert [row["code"] for row in rows] == [new, old]
    assert rows[0]["average_accuracy_by_seed"] == "0:0.8"
    assert json.loads(json.dumps(rows_of(mixed)))[1]["code"] == old


def test_bytes_are_summed_in_the_table_and_given_by_part_in_the_file():
    entries = [entry("ours", "ours", [0.8, 0.9]), entry("joint", "upper", [0.9, 0.9])]
    entries[0].results[0]["memory_bytes"] = {"inputs": 38_720, "weights": 40}
    entries[1].results[0]["memory_bytes"] = entries[1].results[1]["memory_bytes"] = {}
    rows = rows_of(entries)
    assert rows[0]["memory_bytes"] == (38_760 + 1_300) / 2
    assert rows[0]["memory_bytes_by_part"] == {"inputs": 20_000, "weights": 20, "labels": 10}
    header, *lines = blocks_of(rows)[0].header, *blocks_of(rows)[0].lines
    assert header.index("memory") == header.index("kept") + 1
    assert [line[header.index("memory")] for line in lines] == ["20", "0.0"]
    row = next(csv.DictReader(StringIO(comma_separated(rows))))
    assert row["memory_bytes_by_part"] == "inputs:20000 weights:20 labels:10"
