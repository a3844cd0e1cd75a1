"""The example runs, and its sets are as short as its page says."""

import re
import runpy
from pathlib import Path


def test_the_example_runs(capsys):
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "conformal.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    lengths = [float(re.search(r"mean length is ([\d.]+)", line)[1]) for line in lines]
    assert len(lengths) == 2 and lengths[0] < 0.45 * lengths[1]
    assert all(0.86 < float(re.search(r": ([\d.]+) of targets", line)[1]) < 0.95 for line in lines)
