"""Streams of tables: which columns become which inputs, and what a cell that does not belong says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesdual.scenarios import from_table

N = 40
DRAWN = np.random.default_rng(0).normal(100.0, 20.0, N)
COLUMNS = {
    "weight": [f"{value:.2f}" for value in DRAWN],
    "colour": [("red", "blue", "green")[i % 3] for i in range(N)],
    "code": [str((1, 10, 2)[i % 3]) for i in range(N)],
    "shop": [("south", "north")[i // 20] for i in range(N)],
    "day": [f"2013-0{1 + i // 10}-{1 + i % 10:02}" for i in range(N)],
    "customer": [f"c{i % 8}" for i in range(N)],
    "bought": [("yes", "no")[i % 2] for i in range(N)],
}
FEATURES = ["weight", "colour"]


def write(path, columns=COLUMNS, delimiter=","):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def cells(**columns):
    """The table with a cell in another way: ``column=(row, value)``."""
    changed = {name: list(values) for name, values in COLUMNS.items()}
    for name, (row, value) in columns.items():
        changed[name][row] = value
    return changed


def test_numbers_are_standardised_and_text_is_one_hot(tmp_path):
    path = write(tmp_path / "sales.csv")
    benchmark = from_table(path, "bought", features=[*FEATURES, "code"], categories=["code"], n_experiences=2)
    names = ["weight", "colour=blue", "colour=green", "colour=red", "code=1", "code=2", "code=10"]
    assert benchmark.encoding.features == names and benchmark.class_names == ("no", "yes")
    first = benchmark.train_stream[0].tensors()
    weights = np.array(COLUMNS["weight"], dtype=float)
    learned = weights[first.index]
    for experience in (*benchmark.train_stream, *benchmark.test_stream):
        data = experience.tensors()
        rows = data.index.numpy()
        wanted = (weights[rows] - learned.mean()) / learned.std()
        torch.testing.assert_close(data.x[:, 0], torch.from_numpy(wanted).float(), atol=1e-5, rtol=1e-5)
        for column, part in (("colour", slice(1, 4)), ("code", slice(4, 7))):
            chosen = [names[part][i] for i in data.x[:, part].argmax(1)]
            assert chosen == [f"{column}={COLUMNS[column][i]}" for i in rows]
        assert data.x[:, 1:].sum(1).tolist() == [2.0] * len(rows) and data.x.dtype == torch.float32


def test_a_file_a_dict_and_a_frame_give_the_same(tmp_path):
    frame = type("Frame", (), {"columns": list(COLUMNS), "__getitem__": lambda self, name: np.array(COLUMNS[name])})()
    sources = [write(tmp_path / "a.csv"), str(write(tmp_path / "b.txt", delimiter=";")), COLUMNS, frame]
    made = [
        from_table(s, "bought", features=FEATURES, n_experiences=2, delimiter=";" if "b.txt" in str(s) else ",")
        for s in sources
    ]
    wanted = made[0].test_stream[1].tensors()
    for benchmark in made[1:]:
        data = benchmark.test_stream[1].tensors()
        assert torch.equal(data.x, wanted.x) and torch.equal(data.y, wanted.y)


def test_parquet_is_read_where_pyarrow_is_there(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {**COLUMNS, "weight": DRAWN, "day": np.array(COLUMNS["day"], dtype="datetime64[D]")}
    parquet.write_table(pyarrow.table(columns), tmp_path / "sales.parquet")
    benchmark = from_table(
        tmp_path / "sales.parquet", "bought", features=FEATURES, by="time", time="day", every="month"
    )
    assert [len(e.dataset) for e in benchmark.train_stream] == [8] * 4
    (tmp_path / "sales.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="sales.parquet is no Parquet file, or is damaged"):
        from_table(tmp_path / "sales.parquet", "bought")


def test_without_pyarrow_parquet_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "sales.parquet").touch()
    with pytest.raises(ValueError, match="pip install pyarrow, or save it as CSV"):
        from_table(tmp_path / "sales.parquet", "bought")


def test_columns_that_say_where_a_row_belongs_are_no_features(tmp_path):
    path = write(tmp_path / "sales.csv")
    by_shop = from_table(path, "bought", by="domain", domain="shop", groups="customer", categories=["code", "day"])
    assert {name.partition("=")[0] for name in by_shop.encoding.features} == {"weight", "colour", "code", "day"}
    assert [set(np.array(COLUMNS["shop"])[e.tensors().index]) for e in by_shop.test_stream] == [{"south"}, {"north"}]
    sides = [
        {COLUMNS["customer"][i] for e in stream for i in e.tensors().index}
        for stream in (by_shop.train_stream, by_shop.test_stream)
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 8
    monthly = from_table(path, "bought", features=FEATURES, by="time", time="day", every="month", test=0.3)
    assert [e.tensors().index.tolist() for e in monthly.test_stream] == [
        [7, 8, 9],
        [17, 18, 19],
        [27, 28, 29],
        [37, 38, 39],
    ]


def test_a_file_for_testing_is_encoded_with_the_other(tmp_path):
    path, other = write(tmp_path / "train.csv"), write(tmp_path / "test.csv", cells(colour=(3, "violet")))
    benchmark = from_table(path, "bought", features=FEATURES, n_experiences=2, test=str(other))
    assert (
        [len(e.dataset) for e in benchmark.train_stream] == [len(e.dataset) for e in benchmark.test_stream] == [20] * 2
    )
    assert "colour=violet" in benchmark.encoding.features
    further = benchmark.encoding({"weight": ["100"], "colour": ["red"]})
    assert further.shape == (1, 5) and further[0, 1:].tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="has 'pink' in column 'colour', which no row had"):
        benchmark.encoding({"weight": ["100"], "colour": ["pink"]})
    write(tmp_path / "test.csv", {name: values for name, values in COLUMNS.items() if name != "colour"})
    with pytest.raises(ValueError, match="test.csv has no column 'colour', which .*train.csv has"):
        from_table(path, "bought", features=FEATURES, n_experiences=2, test=str(other))


def test_a_column_of_one_value_is_left_out_and_told_of(tmp_path):
    path = write(tmp_path / "sales.csv", {**COLUMNS, "year": ["2013"] * N})
    with pytest.warns(UserWarning, match="column 'year' of .*sales.csv is 2013 throughout, and is left out"):
        benchmark = from_table(path, "bought", features=[*FEATURES, "year"], n_experiences=2)
    assert len(benchmark.encoding.features) == 4


@pytest.mark.parametrize(
    ("columns", "given", "sentence"),
    [
        (COLUMNS, {"target": "sold"}, "target names the column 'sold', which .*sales.csv has not; it has weight,"),
        (COLUMNS, {"features": ["height"]}, "features names the column 'height'"),
        (COLUMNS, {"features": ["bought"]}, "'bought' is the target"),
        (COLUMNS, {"features": []}, "has no column to learn from"),
        (COLUMNS, {"categories": ["day"]}, "categories names 'day', which is not among the features"),
        (COLUMNS, {"features": ["customer", "day"]}, "column 'day' of .* has 40 different texts in 40 rows"),
        (cells(weight=(16, "heavy")), {}, "line 18 of .*sales.csv has 'heavy' in column 'weight', which"),
        (cells(weight=(16, "")), {}, "line 18 of .*sales.csv has nothing in column 'weight'"),
        (cells(weight=(16, "NaN")), {}, "line 18 of .*sales.csv has nothing in column 'weight'"),
        (cells(weight=(16, "inf")), {}, "line 18 of .*sales.csv has 'inf' in column 'weight'"),
        (cells(colour=(16, "NA")), {}, "line 18 of .*sales.csv has nothing in column 'colour'"),
        (cells(colour=(16, "7")), {}, "line 2 of .*sales.csv has 'red' in column 'colour'"),
        (cells(bought=(16, "")), {}, "line 18 of .*sales.csv, column 'bought', has no label"),
        (cells(bought=(16, "perhaps")), {}, "class 'perhaps' of .*sales.csv has one example, line 18 of"),
        ({**COLUMNS, "bought": COLUMNS["weight"]}, {}, "column 'bought', has the label .*, a number with a fraction"),
        (cells(day=(16, "2013-13-01")), {"by": "time", "time": "day"}, "line 18 of .* has the time '2013-13-01'"),
        ({"weight": [], "bought": []}, {}, "sales.csv has no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_file_line_and_column(tmp_path, columns, given, sentence):
    path = write(tmp_path / "sales.csv", columns)
    with pytest.raises(ValueError, match=sentence):
        from_table(path, **{"target": "bought", "features": FEATURES, "n_experiences": 2, **given})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"a;b\n1;2\n", "has one column, 'a;b': give delimiter ';'"),
        (b"a,b\n1,2\n1,2,3\n", "line 3 of .* has 3 cells and its first line names 2 columns"),
        (b"a,a\n1,2\n", "two columns that are called 'a'"),
        (b"a,b\n\xff,2\n", "no CSV file in UTF-8"),
        (b"", "has no rows"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, text, sentence):
    path = tmp_path / "sales.csv"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=sentence):
        from_table(path, "a")
    with pytest.raises(ValueError, match="there is no such file"):
        from_table(Path("nowhere.csv"), "a")
