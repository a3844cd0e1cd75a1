"""A sample of the damaged files, and those that once did something else than be read or refused."""

import pytest

from tests.fuzz.run import SECONDS, Case, answers, case_named, cases, opened, quiet
from tests.fuzz.targets import Target, by_bytes, write_whole_ones

FOUND = """
checkpoint goes on, by_pickled_values, 3
checkpoint goes on, by_pickled_values, 4
checkpoint goes on, by_pickled_values, 9
checkpoint goes on, by_pickled_values, 30
memory, by_tensors, 4
memory, by_tensors, 5
memory in bytes, by_tensors, 4
posterior, by_tensors, 5
curvature, by_tensors, 6
batch of CIFAR, by_payload, 0
""".strip().split("\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "whole"
    with quiet():
        write_whole_ones(folder)
    return folder


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_refused(whole, name):
    with quiet():
        assert opened(case_named(name), whole) is None


def test_a_sample_of_damaged_files_is_read_or_refused(whole):
    with quiet():
        wrong = [(case.name, said) for case in cases(60, seed=1000) if (said := opened(case, whole))]
    assert not wrong


def test_what_crashes_hangs_or_runs_code_is_found(whole, monkeypatch):
    monkeypatch.setattr("tests.fuzz.run.SECONDS", 0.5)
    assert SECONDS > 1

    def does(code):
        return Target("any", "digits.idx", by_bytes, lambda path: exec(code), 1)

    tried = [
        "import os; os.abort()",
        "import time; time.sleep(60)",
        "raise KeyError(1)",
        "open('executed', 'w').close()",
        "raise ValueError('no')",
    ]
    said = [s for _, s in answers([Case(does(code), 0) for code in tried], whole)]
    assert said[0].startswith("crashes") and said[1] == "hangs" and said[2].startswith("KeyError: 1")
    assert said[3] == "executed code" and said[4] == ""
