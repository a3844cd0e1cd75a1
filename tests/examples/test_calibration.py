"""The example of calibrated answers runs, and the posterior's answers are the likelier ones."""

import re
import runpy
from pathlib import Path


def test_the_example_runs(capsys):
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "calibration.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()[-3:]
    nll = {line.split()[0]: float(re.search(r"NLL (\S+)", line)[1]) for line in lines}
    assert list(nll) == ["mean", "temperature", "linearised"]
    assert nll["linearised"] < nll["mean"]
