"""What is declared is what is imported; a wheel works from another folder; the Makefile sets up once."""

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import pytest

from bayesdual import extras

REPOSITORY = Path(__file__).resolve().parents[1]
NO_VENV = 'case "$*" in *venv*) exit 1;; esac'
PACKAGES = ("bayesdual", "scenarios", "strategies", "configs")
CORE = (
    "algorithm",
    "conformal",
    "files",
    "ivon",
    "kprior",
    "measures",
    "memory",
    "models",
    "posterior",
    "scenarios",
    "serving",
    "stream",
)
NEEDS_LIGHTNING, NEEDS_AVALANCHE = (f"pip install 'bayesdual[{extra}]'." for extra in ("lightning", "avalanche"))
NEEDS_ALL = "pip install 'bayesdual[all]'."


def run(*command, **kwargs):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- What is declared --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def declared():
    """The distributions that the package, and each of its extras, brings with it."""
    project = pytest.importorskip("tomllib").loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = {"": project["dependencies"], **project["optional-dependencies"]}

    def brought(extra):
        names = set()
        for requirement in listed[extra]:
            if own := re.match(r"bayesdual\[(.*)\]", requirement):
                names = names.union(*map(brought, own[1].split(",")))
            names.add(re.match(r"[\w-]+", requirement)[0].lower())
        return names

    return {extra: brought("") | brought(extra) for extra in listed}


def imported(*folders):
    """The modules of others that the files of folders import, at their top or later."""
    found = set()
    for path in (path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0] for name in names}
    own = {path.stem for path in (REPOSITORY / "benchmarks").glob("*.py")}
    return found - set(sys.stdlib_module_names) - own - {"bayesdual", "tests"}


NAMED_OTHERWISE = {"laplace": ["laplace-torch"]}  # of those that need not be installed
BROUGHT_BY_THE_USER = {"IPython", "trl", "datasets"}  # by a notebook; by who wants the recipe of TRL, as its page says


def brings(distributions, module):
    names = distributions_of().get(module) or NAMED_OTHERWISE.get(module, [module])
    return any(name.lower() in distributions for name in names)


distributions_of = cache(packages_distributions)


@pytest.mark.parametrize("folders", [PACKAGES, ("benchmarks", "examples", "tests")], ids=["package", "others"])
def test_what_is_imported_is_declared(declared, folders):
    modules = imported(*folders)
    assert "torch" in modules and "avalanche" in modules
    known = (
        declared["all"] | declared["lora"] | declared["ray"] | declared["transformers"]
        if folders == PACKAGES
        else set().union(*declared.values())
    )
    assert not [module for module in modules - BROUGHT_BY_THE_USER if not brings(known, module)]


@pytest.mark.parametrize("extra", extras.MODULES)
def test_modules_looked_for_are_those_that_an_extra_brings(declared, extra):
    assert all(brings(declared[extra], module) for module in extras.MODULES[extra])


def without_extras(statements, tmp_path):
    """What Python prints where nothing is installed but what the optimizer needs."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({sorted({*chain(*extras.MODULES.values())})!r}))\n"
    return run(
        sys.executable, "-c", blocked + statements, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )


def test_the_optimizer_and_the_algorithm_need_no_extra(tmp_path):
    script = """
import torch, bayesdual
from bayesdual import IVON, BayesDual, KroneckerPrior, Posterior, function_variance, sensitivities
weight = torch.nn.Linear(3, 2)
optimizer = IVON(weight.parameters(), lr=0.1, ess=10)
with optimizer.sampled_params(train=True):
    weight(torch.ones(1, 3)).sum().backward()
optimizer.step()
print(BayesDual(memory_size=10).memory.budget, Posterior.from_optimizer(weight, optimizer).variance["bias"].shape)
"""
    imports = "".join(f"import bayesdual.{room}\n" for room in CORE)
    assert without_extras(imports + script, tmp_path) == "10 torch.Size([2])\n"


MISSING = {
    "from bayesdual import Learner": f"bayesdual.Learner needs lightning, which is not installed: {NEEDS_LIGHTNING}",
    "from bayesdual.learner import Learner": NEEDS_LIGHTNING,
    "from bayesdual.ivon import IVONCallback": NEEDS_LIGHTNING,
    "from bayesdual.measures import StreamMetric": NEEDS_LIGHTNING,
    "from bayesdual.scenarios import SplitDigits": NEEDS_AVALANCHE,
    "from bayesdual.scenarios import digits; digits()": NEEDS_AVALANCHE,
    "from bayesdual.scenarios import from_table": NEEDS_AVALANCHE,
    "from bayesdual.sklearn import ContinualClassifier": "pip install 'bayesdual[sklearn]'.",
    "from bayesdual.strategies import BayesDualPlugin": NEEDS_AVALANCHE,
    "from bayesdual.conformal import ConformalRegressor": "pip install 'bayesdual[sklearn]'.",
    "from bayesdual.conformal import BinnedRegression": NEEDS_LIGHTNING,
    "from bayesdual.prediction import fit_isotonic": "pip install 'bayesdual[sklearn]'.",
    "from bayesdual.inspection import RunReport": NEEDS_ALL,
    "from bayesdual.configuration import resolve": NEEDS_ALL,
    "from bayesdual.comparison import Store": NEEDS_ALL,
    "import bayesdual.cli": NEEDS_ALL,
    "from bayesdual.lora import LoRAClassifier": "pip install 'bayesdual[lora]'.",
}


def test_what_is_not_installed_is_one_sentence(tmp_path):
    script = """
for statement in {statements!r}:
    try:
        exec(statement)
    except ModuleNotFoundError as error:
        print(error)
    else:
        print("imported")
"""
    lines = without_extras(script.replace("{statements!r}", repr([*MISSING])), tmp_path).splitlines()
    assert len(lines) == len(MISSING)
    for line, (statement, sentence) in zip(lines, MISSING.items(), strict=True):
        assert line.endswith(sentence) and "which is not installed" in line, statement


@pytest.mark.parametrize("argv", [["--help"], ["fit", "--config", "configs/split_digits.yaml"], ["list", "networks"]])
def test_the_command_line_says_in_one_sentence_what_is_not_installed(argv, tmp_path):
    script = (
        "import contextlib, sys; from bayesdual.__main__ import main\n"
        f"with contextlib.redirect_stderr(sys.stdout): print(main({argv!r}))"
    )
    lines = without_extras(script, tmp_path).splitlines()
    assert len(lines) == 2 and lines[0].startswith("bayesdual: the command line needs ")
    assert lines[0].endswith(NEEDS_ALL) and lines[1] == "1"


# ---- What is built -----------------------------------------------------------------------------------------


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


def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--target", site)
    run(sys.executable, "-m", "pip", "install", *options, "--editable", source)
    (link,) = site.glob("__editable__*.pth")
    assert link.read_text().strip() == str(source), "a path, and no import hook, which type checkers do not run"


@pytest.mark.parametrize("name", ["scenarios", "strategies", "configs"])
def test_folders_at_the_top_are_packages_of_ours_by_a_link(name):
    assert (REPOSITORY / "bayesdual" / name).resolve() == REPOSITORY / name


# ---- The Makefile ------------------------------------------------------------------------------------------


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
    assert calls.splitlines()[-1] == "-m pytest -n 2"
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


def test_ci_runs_what_make_check_runs_the_quick_checks_first(clone):
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line.split()[1:] for line in script.read_text().splitlines() if line.startswith("make ")]
    (checks,) = re.findall(r"^check: ([a-z ]+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert ["test"] in lines and sum(lines, []) == checks.split()
    planned = make(clone, "--dry-run", "check").stdout
    tools = ("ruff format --check", "ruff check", "mypy", "pyright", "pytest", "pip wheel", "mkdocs build")
    places = [planned.find(f"-m {tool}") for tool in tools]
    assert -1 not in places and places == sorted(places)


def test_tools_have_one_version_everywhere(declared):
    pins = re.findall(r"rev: v([\d.]+)", (REPOSITORY / ".pre-commit-config.yaml").read_text())
    assert len(pins) == 1 and f'"ruff=={pins[0]}"' in (REPOSITORY / "pyproject.toml").read_text()
    assert {"mypy", "pyright", "ruff"} <= declared["dev"]
