"""The table of mutants still fits the code, and what runs it tells a caught mutant from one that survives."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.run import CAUGHT, NOT_FOUND, SURVIVED, judge, verdict
from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@cache
def test_names(file):
    """The functions of a file and the methods of its classes, as pytest names them."""
    body = ast.parse((ROOT / file).read_text()).body
    methods = {f"{c.name}::{m.name}" for c in body if isinstance(c, ast.ClassDef) for m in c.body if hasattr(m, "name")}
    return {f.name for f in body if isinstance(f, ast.FunctionDef)} | methods


test_names.__test__ = False  # a helper


def test_there_are_enough_and_each_has_its_name():
    assert len(MUTANTS) >= 36
    assert not [name for name, n in Counter(m.name for m in MUTANTS).items() if n > 1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_table_fits_the_code(mutant):
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.snippet) == 1, f"{mutant.file} has the snippet {text.count(mutant.snippet)} times"
    changed = text.replace(mutant.snippet, mutant.replacement)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))  # it can be imported, and is not the same
    file, _, name = mutant.test.partition("::")
    assert (ROOT / file).is_file()
    assert not name or name.partition("[")[0] in test_names(file)


@pytest.fixture
def repository(tmp_path):
    """A module with a function, and a test that looks at one of its two values."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "double.py").write_text("def double(x):\n    return 2 * x if x > 0 else -1\n")
    test = "from benchmarks.double import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
    (tmp_path / "tests" / "test_double.py").write_text(test)
    return tmp_path


def test_a_mutant_is_caught_survives_or_is_not_found(repository, capsys):
    where = {"file": "benchmarks/double.py", "test": "tests/test_double.py::test_double"}
    text = (repository / "benchmarks" / "double.py").read_text()
    mutants = [
        Mutant("noticed", snippet="2 * x", replacement="3 * x", **where),
        Mutant("not looked at", snippet="-1", replacement="-2", **where),
        Mutant("gone", snippet="5 * x", replacement="6 * x", **where),
    ]
    assert judge(repository, mutants) == {"noticed": CAUGHT, "not looked at": SURVIVED, "gone": NOT_FOUND}
    assert (repository / "benchmarks" / "double.py").read_text() == text
    assert "[3/3]" in capsys.readouterr().out


def test_what_fails_anyway_or_cannot_be_imported_counts_as_nothing(repository):
    where = {"file": "benchmarks/double.py", "snippet": "2 * x", "test": "tests/test_double.py"}
    assert "no failed test" in verdict(repository, Mutant("no Python", replacement="2 *", **where))
    (repository / "tests" / "test_double.py").write_text("def test_double():\n    assert False\n")
    with pytest.raises(SystemExit, match="fail on the code as it is"):
        judge(repository, [Mutant("any", replacement="3 * x", **where)])
