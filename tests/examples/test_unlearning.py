"""The example of unlearning runs, and what is left is nearer to a network that never saw the examples."""

import re
import runpy
from pathlib import Path


def test_the_example_runs(capsys):
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "unlearning.py"), run_name="__main__")
    before, after = (float(value) for value in re.findall(r": (\S+) from", capsys.readouterr().out))
    assert 0 < after < 0.8 * before
