"""Which code a digest is of: what a thing imports, and not how it is written down."""

import ast
import importlib
import subprocess
import sys

import pytest

from bayesdual import sources

HELPER = "def helper():\n    return 1\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user's: ``own_of_test`` with two modules, and one that both could import."""
    folder = tmp_path / "own_of_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text(HELPER)
    (folder / "network.py").write_text("from own_of_test import helper\n\n\nclass Net:\n    pass\n")
    (folder / "other.py").write_text("import os\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed = sources.INSTALLED - set(tmp_path.parts)  # wherever the tests' temporary folder is
    monkeypatch.setattr(sources, "INSTALLED", installed)
    yield folder
    forget()


def forget():
    sources.parsed.cache_clear()
    sources.digest.cache_clear()
    sources._top_level.cache_clear()
    sources._imported_as.cache_clear()
    importlib.invalidate_caches()


def digest(*names):
    forget()
    return sources.digest(*names)


def test_what_a_module_imports_counts_and_its_neighbours_do_not(package):
    assert sources.modules_behind(["own_of_test.network.Net"]).keys() == {
        "own_of_test",
        "own_of_test.helper",
        "own_of_test.network",
    }
    before = digest("own_of_test.network.Net")
    (package / "other.py").write_text("import sys\n")
    assert digest("own_of_test.network.Net") == before
    (package / "helper.py").write_text(HELPER.replace("1", "2"))
    assert digest("own_of_test.network.Net") != before


def test_comments_docstrings_and_formatting_do_not_count(package):
    before = digest("own_of_test.helper")
    (package / "helper.py").write_text('"""A module."""\n\ndef helper():\n  """Helps."""\n  return (1)  # one\n')
    assert digest("own_of_test.helper") == before
    (package / "helper.py").write_text('def helper():\n    "Helps."\n    return "1"\n')
    assert digest("own_of_test.helper") != before


@pytest.mark.parametrize(
    "line",
    ["from . import other", "from .other import x", "import own_of_test.other", "from own_of_test.other import *"],
)
def test_every_way_to_import_is_followed_wherever_it_stands(package, line):
    (package / "network.py").write_text(f"def later():\n    {line}\n" if "*" not in line else f"{line}\n")
    assert "own_of_test.other" in sources.modules_behind(["own_of_test.network.Net"])


def test_a_name_leads_through_a_package_to_where_it_is_defined():
    behind = sources.modules_behind(["bayesdual.learner.History"])
    assert "bayesdual.learner.history" in behind and "bayesdual.learner.learner" not in behind
    assert "bayesdual.learner" not in behind


def test_a_run_of_ours_is_made_by_the_core_and_not_by_what_prints_it():
    behind = sources.modules_behind(["bayesdual.comparison.learn", "bayesdual.scenarios.SplitDigits"])
    for name in ("algorithm", "learner.learner", "ivon.optimizer", "memory.memory", "memory.selection"):
        assert f"bayesdual.{name}" in behind
    assert {"bayesdual.comparison.ours", "bayesdual.scenarios.split", "bayesdual.scenarios.datasets"} <= behind.keys()
    places = {name.split(".")[1] for name in behind}
    assert not places & {"cli", "configuration", "inspection", "strategies", "configs"}
    assert not [name for name in behind if name.startswith("bayesdual.comparison.") and not name.endswith(".ours")]


def test_what_keeps_and_shows_runs_makes_none_of_them(package):
    lines = "from bayesdual.comparison import Store, learn\nfrom bayesdual.configuration import resolve\n"
    (package / "network.py").write_text(lines)
    forget()
    behind = {name for name in sources.modules_behind(["own_of_test.network.run"]) if name.startswith("bayesdual.")}
    assert {name for name in behind if name.split(".")[1] in ("comparison", "configuration")} == {
        "bayesdual.comparison.ours"
    }
    assert "bayesdual.algorithm" in behind


def test_a_baseline_is_not_made_by_our_method():
    behind = sources.modules_behind(["bayesdual.strategies.baselines.learn", "bayesdual.models.MLP"])
    assert {"bayesdual.strategies.baselines.methods", "bayesdual.learner.datamodule"} <= behind.keys()
    assert {"bayesdual.measures.stream_metric", "bayesdual.models.small"} <= behind.keys()
    ours = {name for name in behind if name.split(".")[1] in ("ivon", "memory", "kprior", "posterior", "algorithm")}
    assert ours <= {f"bayesdual.memory.{name}" for name in ("shares", "levels", "low_rank_spread")}, (
        "but for what codes"
    )


@pytest.mark.parametrize("name", ["torch.optim.Adam", "json.dumps", "no.such.thing", "split_digits.yaml", "__main__.x"])
def test_installed_packages_and_what_is_no_name_add_nothing(name):
    assert sources.modules_behind([name]) == {} and sources.digest(name) == sources.digest()


def test_the_digest_of_all_is_of_all_modules():
    before = sources.digest_of_all()
    assert len(before) == 16 and before == sources.digest_of_all()


def test_definitions_are_found_through_packages_and_have_their_first_line():
    assert isinstance(sources.definition("bayesdual.IVON"), ast.ClassDef)
    assert sources.definition("bayesdual.no_such_name") is None and sources.definition("no.such") is None
    from bayesdual.memory import herding

    assert sources.first_line("bayesdual.memory.herding") == herding.__doc__.splitlines()[0]
    assert sources.first_line("bayesdual.memory.IMPOSSIBLE") == ""


def test_reading_sources_imports_nothing():
    script = (
        "import sys; from bayesdual import sources;"
        "sources.digest('bayesdual.comparison.learn', 'bayesdual.models.MLP', 'bayesdual.strategies.baselines.learn');"
        "print({'torch', 'lightning', 'avalanche', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
