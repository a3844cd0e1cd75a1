"""Tables for the terminal say what was measured, in 80 characters."""

import io
import math

import pytest
import torch
from rich.console import Console

from bayesdual.inspection import accuracy_tables, evaluation_table, summary
from bayesdual.inspection.tables import grouped, heat
from bayesdual.measures import StreamMetric

RESULTS = {
    "average_accuracy": 0.91234,
    "forgetting": 0.05,
    "backward_transfer": -0.05,
    "forward_transfer": 0.01,
    "nll": 0.25,
    "ece": 0.031,
    "seconds_total": 12.34,
    "seconds_training": 10.0,
    "seconds_evaluation": 2.04,
    "seconds_memory": 0.3,
    "memory_size": 90,
    "memory_budget": 100,
}


def printed(*tables):
    console = Console(file=io.StringIO(), width=80)
    console.print(*tables)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip(" ─━╸")]


def test_the_summary_has_every_measure_with_its_sign():
    lines = summary(RESULTS).splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()) == (
        "average accuracy 0.9123 forgetting 0.0500 backward transfer -0.0500 forward transfer +0.0100 NLL 0.2500 "
        "ECE 0.0310 memory: 90 of 100 exemplars seconds: 12.3 (training 10.0, evaluation 2.0, memory 0.3)"
    )
    assert "forward transfer         -" in summary({**RESULTS, "forward_transfer": None})


def test_the_accuracy_matrix_leaves_out_what_is_not_learned_yet():
    header, first, second = printed(*accuracy_tables([[0.9, 0.1], [0.6, 0.8]]))
    assert header == ["after", "1", "2", "seen"]
    assert first == ["1", "0.900", "-", "0.900"] and second == ["2", "0.600", "0.800", "0.700"]


@pytest.mark.parametrize(("experiences", "tables"), [(10, 1), (11, 2), (25, 3)])
def test_many_experiences_are_tables_of_ten_and_the_mean_stands_in_the_last(experiences, tables):
    matrix = [[0.5] * experiences for _ in range(experiences)]
    made = list(accuracy_tables(matrix))
    assert len(made) == tables
    titles = [[column.header for column in table.columns] for table in made]
    assert all(names[0] == "after" and len(names) <= 12 for names in titles)
    assert sum(titles, []).count("seen") == 1 and titles[-1][-1] == "seen"
    assert [n for names in titles for n in names if n.isdigit()] == [str(1 + i) for i in range(experiences)]


def test_an_evaluation_has_a_row_for_each_experience_and_the_means():
    p = torch.tensor([[0.75, 0.25]]).repeat(4, 1)
    metric = StreamMetric(2)
    metric.update(p[:2], torch.tensor([0, 1]), 0)
    metric.update(p[2:], torch.tensor([0, 0]), 1)
    metric.update(torch.full((2, 2), 0.5), torch.tensor([7, 7]), 2)  # of another kind
    rows = printed(evaluation_table(metric.compute(), "test"))
    assert rows == [
        ["experience", "accuracy", "on", "the", "test", "stream"],
        ["1", "0.5000"],
        ["2", "1.0000"],
        ["average", "0.7500"],
        ["NLL", f"{-(3 * math.log(0.75) + math.log(0.25)) / 4:.4f}"],
        ["ECE", "0.0000"],
        ["adaptive", "ECE", "0.3750"],  # a bin of each example
        ["Brier", f"{(3 * 2 * 0.25**2 + 2 * 0.75**2) / 4:.4f}"],
        ["AURC", f"{(1 / 2 + 1 / 3 + 1 / 4) / 4:.4f}"],
        ["entropy", f"{-0.75 * math.log(0.75) - 0.25 * math.log(0.25):.4f}"],
        ["other", "data,", "by", "entropy:", "AUROC", "1.0000"],
        ["other", "data,", "by", "entropy:", "FPR95", "0.0000"],
    ]


def test_a_hundred_experiences_are_one_table_of_means_and_it_says_so():
    matrix = [[i / 1000 + (j % 10) / 10 for j in range(100)] for i in range(95)]
    rows, columns, said = grouped(matrix)
    assert columns[:2] == ["1-10", "11-20"] and columns[-2:] == ["91-100", "seen"]
    assert said == ": means of 10, every 10th row"
    assert [name for name, _ in rows] == [str(i) for i in (*range(10, 91, 10), 95)]
    last = rows[-1][1]
    assert last[0] == pytest.approx(0.094 + 0.45) and last[9] == pytest.approx(0.094 + 0.2), "of those learned"
    assert math.isnan(rows[0][1][1])
    (table,) = accuracy_tables(matrix)
    assert table.title == "means of 10, every 10th row" and table.row_count == 10


def test_cells_are_as_bright_as_they_are_good():
    assert heat(0.0) == ("#ffffff", "#440154") and heat(1.0) == ("#000000", "#fde725")
    assert heat(0.75)[1] == "#5ec962"
