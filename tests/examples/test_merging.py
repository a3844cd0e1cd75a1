"""The example of merging: its networks rank as its page says."""

import runpy
from pathlib import Path


def test_gradient_matching_is_ahead(capsys):
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "merging.py"))
    lines = capsys.readouterr().out.splitlines()
    accuracy = {line[:18].strip(): float(line[18:]) for line in lines}
    assert list(accuracy) == ["base", "average", "task arithmetic", "RegMean", "gradient matching"]
    assert accuracy["gradient matching"] == max(accuracy.values()) > 0.85
    assert accuracy["gradient matching"] > accuracy["average"] + 0.2
