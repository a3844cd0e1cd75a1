"""Type checkers resolve every import from any folder, find no error in what is documented, and find what is wrong."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RIGHT, WRONG = "user_script.py", "wrong_script.py"


def mypy(folder):
    """The errors of mypy in the scripts of a folder: file, line and what it says."""
    pytest.importorskip("mypy", reason="mypy is not installed: pip install -e '.[dev]'")
    (folder / "mypy.ini").write_text("[mypy]\n[mypy-transformers.*,peft.*]\nfollow_imports = skip\n")  # half a minute
    options = ("--strict", "--untyped-calls-exclude=torch")  # torch's own backward() has no types
    command = (sys.executable, "-m", "mypy", *options, "--cache-dir", folder / "cache", RIGHT, WRONG)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"^(\S+?):(\d+): error: (.*)", done.stdout, re.MULTILINE)
    return [(file, int(line), text) for file, line, text in found]


def pyright(folder):
    """The errors of pyright."""
    pytest.importorskip("pyright", reason="pyright is not installed: pip install -e '.[dev]'")
    options = {"typeCheckingMode": "strict", "reportUnusedImport": False}
    options |= {"reportUnknownMemberType": False}  # torch's own backward() has no types
    (folder / "pyrightconfig.json").write_text(json.dumps(options))
    command = (sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", RIGHT, WRONG)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [(Path(d["file"]).name, 1 + d["range"]["start"]["line"], d["message"]) for d in found]


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_strict_scripts_of_users_have_the_errors_that_they_should_and_no_others(checker, tmp_path):
    for name in (RIGHT, WRONG):
        shutil.copy(HERE / name, tmp_path)
    errors = checker(tmp_path)
    assert not [error for error in errors if error[0] == RIGHT]
    lines = (HERE / WRONG).read_text().splitlines()
    marked = {number for number, line in enumerate(lines, start=1) if "# wrong" in line}
    assert len(marked) > 8 and {line for file, line, _ in errors if file == WRONG} == marked, errors


def test_the_script_without_errors_runs():
    from tests.typing import user_script

    user_script.main()
