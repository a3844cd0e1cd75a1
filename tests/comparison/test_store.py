"""Runs on disk: none is made twice, and none of other code is taken for one of today's."""

import json

import pytest

from bayesdual.comparison import Cell, Store, dotted_names, made_by, store

CALLS = []


def learn(lr):
    CALLS.append(lr)
    return {"average_accuracy": lr}


def cell(lr=0.5, title="a run"):
    return Cell(title, {"learn": f"{__name__}.learn", "arguments": {"lr": lr}})


@pytest.fixture(autouse=True)
def forget():
    CALLS.clear()


def of_other_code(cell):
    other = Cell(cell.title, cell.spec)
    other.__dict__["code"] = "feedfacecafebeef"
    return other


def test_a_run_is_made_once_and_read_back(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert cell() not in Store(path) and not path.exists()
    assert Store(path).make(cell()).results == {"average_accuracy": 0.5}
    assert Store(path).make(cell()).results == Store(path)[cell()].results == {"average_accuracy": 0.5}
    assert CALLS == [0.5] and len(path.read_text().splitlines()) == 1
    Store(path).make(cell(lr=0.25))
    assert CALLS == [0.5, 0.25]


def test_a_run_says_what_made_it(tmp_path):
    run = Store(tmp_path / "runs.jsonl").keep(cell(), None, diverged="the loss became nan", made_by="node 1")
    (read,) = Store(tmp_path / "runs.jsonl")
    assert read == run and read.results is None and read.made_by == "node 1"
    assert read.code == cell().code and len(read.code) == 16
    assert made_by([read]) == f"bayesdual {read.version} (code {read.code[:8]})"


def test_runs_of_other_code_are_not_used_but_kept_and_said(tmp_path):
    path = tmp_path / "runs.jsonl"
    Store(path).keep(of_other_code(cell()), {"average_accuracy": 0.1})
    before = path.read_text()
    found = Store(path)
    assert cell() not in found
    assert found.left_aside([cell()]) == f"left aside, and kept in {path}: 1 run of other code (feedface)."
    assert found.left_aside([of_other_code(cell())]) is None
    assert found.make(cell()).results == {"average_accuracy": 0.5} and CALLS == [0.5]
    assert path.read_text().startswith(before)


def test_runs_without_a_digest_and_damaged_lines_are_left_aside_in_one_sentence(tmp_path):
    path = tmp_path / "runs.jsonl"
    record = {"name": "", "title": "a run", "spec": {}, "code": None, "version": "0.1.0", "results": {}}
    lines = [json.dumps({**record, "name": name}) for name in ("x", "y")]
    path.write_text("\n".join([lines[0], "[1]", lines[1], '{"name": "cut o']))
    found = Store(path)
    assert found.left_aside([cell()]) == (
        f"left aside, and kept in {path}: 2 runs without a digest of the code that made them; "
        "2 runs whose line is damaged."
    )
    assert made_by(found) == "bayesdual 0.1.0 (code not recorded)"
    found.make(cell())
    assert cell() in Store(path), "a line that was cut off spoils no other"


def test_a_table_of_what_is_there_takes_the_last_run_of_each_title(tmp_path):
    found = Store(tmp_path / "runs.jsonl")
    for lr in (0.1, 0.2):
        found.make(cell(lr))
    found.make(cell(0.3, title="another"))
    assert {title: run.results for title, run in found.latest().items()} == {
        "a run": {"average_accuracy": 0.2},
        "another": {"average_accuracy": 0.3},
    }


def test_a_cell_is_known_by_the_code_that_its_settings_name(tmp_path, monkeypatch):
    module = tmp_path / "own_network_of_test.py"
    module.write_text("WIDTH = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = Cell("own", {"learn": f"{__name__}.learn", "arguments": {"network": {"class_path": f"{module.stem}.Net"}}})
    assert own.names == sorted([f"{__name__}.learn", f"{module.stem}.Net"])
    code, before = own.code, own.name
    module.write_text("WIDTH = 4\n")
    store.sources.digest.cache_clear()
    store.sources.parsed.cache_clear()
    again = Cell("own", own.spec)
    assert again.code != code and again.name != before


def test_dotted_names_are_found_wherever_they_are():
    spec = {"a": "x.y", "b": [{"c": "torch.optim.Adam"}, ("m.n.o", 3, None)], "d": "no name", "e": "3.5", "f": "plain"}
    assert sorted(dotted_names(spec)) == ["m.n.o", "torch.optim.Adam", "x.y"]
