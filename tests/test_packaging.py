"""A wheel built from the repository works from another folder; the Makefile sets up once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NO_VENV = 'case "$*" in *venv*) exit 1;; esac'
PACKAGES = ("bayesdual", "scenarios", "strategies", "configs")


def run(*command, **kwargs):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the sources: building leaves traces behind."""
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        source / "dist",
        source,
    )
    return next((source / "dist").glob("bayesdual-*.whl"))


def test_wheel_holds_every_module_and_configuration(wheel):
    held = set(ZipFile(wheel).namelist())
    files = [p for name in PACKAGES for p in (REPOSITORY / name).rglob("*") if p.suffix in (".py", ".yaml")]
    names = {p.relative_to(REPOSITORY).as_posix() for p in files}
    expected = {name if name.startswith("bayesdual/") else f"bayesdual/{name}" for name in names}
    assert len(expected) > 30
    assert not (expected | {"bayesdual/py.typed"}) - held
    top = {name.partition("/")[0] for name in held}
    assert {name for name in top if not name.endswith(".dist-info")} == {"bayesdual"}  # no "scenarios" at the top
    assert any(name.endswith("LICENSE") for name in held)


def test_wheel_works_from_another_folder(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    ZipFile(wheel).extractall(site)
    elsewhere.mkdir()
    script = (
        "import bayesdual.scenarios, bayesdual.__main__ as m; print('#', m.__file__, bayesdual.scenarios.__file__);"
        "m.main(['fit', '--config', 'configs/split_digits.yaml', '--print_config'])"
    )
    out = run(sys.executable, "-c", script, cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(site)})
    found = out.splitlines()[0].split()[1:]
    assert len(found) == 2 and all(Path(path).is_relative_to(site) for path in found)
    assert "class_path: bayesdual.scenarios.SplitDigits" in out
    assert not list(elsewhere.iterdir())


def fake_python(folder, body):
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path):
    """A folder with what make needs."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def make(folder, *words):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(["make", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_make_sets_up_once(clone):
    log = clone / "log"
    # Stands for Python; its venv gets a copy of it, which stands for pip and for bayesdual.
    python = fake_python(clone, f'echo "$@" >> {log}; [ "$2" != venv ] || {{ mkdir -p $3/bin; cp $0 $3/bin/python; }}')
    first = make(clone, "test", f"PYTHON={python}")
    assert first.returncode == 0, first.stderr
    assert "once" in first.stdout and "6 GB" in first.stdout
    calls = log.read_text()
    assert "-m venv .venv" in calls and "install" in calls and ".[test]" in calls
    assert calls.splitlines()[-1] == "-m pytest"
    log.write_text("")
    assert make(clone, "demo", f"PYTHON={python}").returncode == 0
    assert log.read_text() == "-m bayesdual fit --config configs/split_digits.yaml\n"


def test_make_goes_on_after_a_set_up_that_failed(clone):
    body = 'case "$*" in *install*) exit 1;; esac; [ "$2" != venv ] || { mkdir -p $3/bin; cp $0 $3/bin/python; }'
    python = fake_python(clone, body)
    assert make(clone, "test", f"PYTHON={python}").returncode != 0
    assert "Setting up" in make(clone, "test", f"PYTHON={python}").stdout


def test_make_says_what_python_lacks(clone):
    old = make(clone, "test", f"PYTHON={fake_python(clone, 'exit 1')}")
    assert old.returncode != 0 and "older than 3.10" in old.stderr
    bare = make(clone, "test", f"PYTHON={fake_python(clone, NO_VENV)}")
    assert bare.returncode != 0 and "has no venv module: install it" in bare.stderr
    assert not (clone / ".venv").exists()


def test_ci_runs_the_tests():
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
