"""What the pages and the docstrings name is there: links, files, and dotted names."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from bayesdual.configuration import MOVED
from bayesdual.extras import MissingExtra
from tests.docs.pages import PAGES, REPOSITORY, anchors, links, name, spans

SOURCES = sorted(
    path
    for folder in ("bayesdual", "scenarios", "strategies", "benchmarks")
    for path in (REPOSITORY / folder).rglob("*.py")
)
FILE = re.compile(r"(bayesdual|strategies|scenarios|configs|docs|tests|benchmarks|examples)/[\w./-]*")
DOTTED = re.compile(r"bayesdual(\.\w+)+")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in links(page):
        if not re.match(r"\w+:", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{name(page)}: {link}"
            assert not anchor or anchor in anchors(target), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_and_names_are_there(page):
    if page.name == "CHANGELOG.md":
        pytest.skip("it names what was there once")
    for span in spans(page):
        if FILE.fullmatch(span):
            assert (REPOSITORY / span).exists(), f"{name(page)}: `{span}`"
        if DOTTED.fullmatch(span):
            assert found(span), f"{name(page)}: `{span}`"


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_docstrings_name_what_is_there(source):
    text = source.read_text(encoding="utf-8")
    for match in re.finditer(r"``(bayesdual(?:\.\w+)+)``|`~?(bayesdual(?:\.\w+)+)`", text):
        dotted = match[1] or match[2]
        assert found(dotted), f"{name(source)}, line {text.count(chr(10), 0, match.start()) + 1}: {dotted}"


def found(dotted: str) -> bool:
    """Whether a dotted name can be imported, or is an attribute of what can."""
    module, *rest = dotted.split(".")
    value = import_module(module)
    for part in rest:
        try:
            value = getattr(value, part)
        except AttributeError:
            try:
                value = import_module(f"{value.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        except MissingExtra:  # it is there for who installs that
            return part in value.__all__
    return True


def test_reference_has_every_public_name():
    """A name that a file of its package has too hides behind that file, unless its page asks for it."""
    for page in (REPOSITORY / "docs" / "reference").glob("*.md"):
        asked = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        packages = [dotted for dotted in asked if (REPOSITORY / Path(*dotted.split("."))).is_dir()]
        assert packages or page.stem in ("index", "algorithm", "integrations"), f"{name(page)} asks for no package"
        for dotted in packages:
            public = import_module(dotted).__all__
            hidden = [n for n in public if (REPOSITORY / Path(*dotted.split("."), f"{n}.py")).exists()]
            assert {f"{dotted}.{n}.{n}" for n in hidden} <= set(asked), f"{name(page)} shows no {hidden}"


def test_every_package_has_a_page():
    folders = {path.parent.name for path in (REPOSITORY / "bayesdual").glob("*/__init__.py")} - {"cli", "configs"}
    assert len(folders) > 10
    assert folders <= {page.stem for page in (REPOSITORY / "docs" / "reference").glob("*.md")}


def test_changelog_has_every_name_that_moved():
    rows = re.findall(r"^\| `(bayesdual\.\S+)` \| `(\S+)` \|$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert dict(rows) == MOVED
