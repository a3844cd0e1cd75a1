"""Every block of code that people read does what its page says.

In the order of a page, in a folder of its own:

- ``python`` is run; the blocks of a page share their names. The last it prints is the ``text`` block that follows at
  once, if one does, but for what differs between processors: digits behind a decimal point.
- ``python`` and ``yaml`` with ``title="FILE"`` are written to that file, and a module is imported.
- ``bash``: each command is looked at, and run as far as it learns nothing (see ``COMMANDS``); so are commands that
  stand in a line.
- A block with ``{not_run="REASON"}`` is left alone.
"""

from __future__ import annotations

import argparse
import importlib
import io
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from bayesdual.__main__ import main
from bayesdual.comparison import read_comparison
from bayesdual.configuration import config_places, find_configs
from tests.docs.pages import PAGES, REPOSITORY, blocks, commands, name, spans

DECIMALS = re.compile(r"(?<=\.)\d+(e[+-]?\d+)?")
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")
MAKEFILE, PYPROJECT = ((REPOSITORY / file).read_text() for file in ("Makefile", "pyproject.toml"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose modules can be imported, and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small data, and at imports
        yield tmp_path
    for key, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if file.is_relative_to(tmp_path) or file.is_relative_to(REPOSITORY / "benchmarks"):
            del sys.modules[key]


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=name)
def test_blocks_do_what_the_page_says(page, folder):
    names: dict[str, Any] = {"__name__": "page"}
    printed, end = None, 0  # of the block before
    for block in blocks(page):
        where = f"{name(page)}, line {block.line}"
        if reason := block.options.get("not_run"):
            assert len(reason.split()) > 1, f"{where}: say why the block is not run"
            printed = None
        elif block.language == "text":
            if printed is not None and block.line == end + 2:
                last = "".join(printed.splitlines(keepends=True)[-len(block.text.splitlines()) :])
                assert without_decimals(last) == without_decimals(block.text), where
        elif block.language == "bash":
            printed = "".join(check(words, where) or "" for words in commands(block.text)) or None
        elif file := block.options.get("title"):
            Path(file).write_text(block.text)
            if block.language == "python":
                importlib.invalidate_caches()
                importlib.import_module(Path(file).stem)
            else:
                assert block.language == "yaml" and isinstance(yaml.safe_load(block.text), dict), where
        else:
            assert block.language == "python", f"{where}: what is {block.language!r}? Say so, or title or not_run"
            code = compile("\n" * block.line + block.text, name(page), "exec")
            printed = output_of(lambda code=code: exec(code, names))
        end = block.end


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_a_line_are_understood(page, folder):
    for span in spans(page):
        if re.match(r"(python|make|pip|bayesdual|pre-commit) \S", span) and not PLACEHOLDER.search(span):
            for words in commands(span):
                check(words, f"{name(page)}: `{span}`")


def test_readme_prints_what_the_demo_prints(folder):
    """All of it but the numbers: with one epoch here."""
    text = next(b.text for b in blocks(REPOSITORY / "README.md") if "experience 1/5 learned" in b.text)
    argv = ["fit", "--config", "configs/split_digits.yaml", "--data.epochs", "1", "--trainer.enable_progress_bar=true"]
    statuses = []
    printed = output_of(lambda: statuses.append(main(argv)))
    assert statuses == [0]
    assert without_numbers(printed) == without_numbers(text)


def without_numbers(text: str) -> list[str]:
    """The lines, each without its numbers, and without what is said of losses, which not every run has."""
    text = re.sub(r"\n +lost .*|; lost .*", "", text)
    return [re.sub(r"-?\d+(\.\d+)?", "#", " ".join(line.replace("+", " ").split())) for line in text.splitlines()]


def without_decimals(text: str) -> str:
    return DECIMALS.sub("#", text).strip()


def output_of(function: Callable[[], object]) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        function()
    return out.getvalue()


# -- commands


def check(words: list[str], where: str) -> str | None:
    """Looks at a command by the entry of ``COMMANDS`` that it begins with; returns what it prints if it is run."""
    for beginning, look in COMMANDS.items():
        if words[: len(beginning)] == list(beginning):
            try:
                return look(words[len(beginning) :])
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{where}: {shlex.join(words)} fails: {error}") from error
    raise AssertionError(f"{where}: nothing here knows {shlex.join(words)}")


def of_ours(words: list[str]) -> str | None:
    """A command line of ours, as far as it learns nothing."""
    of_files = words[0] in ("export", "inspect", "learn", "merge") or (words[0] == "predict" and "--input" in words)
    if of_files and "--help" not in words:  # of files that are not there
        if words[1:]:
            importlib.import_module(f"bayesdual.cli.{words[0]}").parser().parse_args(words[1:])
        return None
    shows = {"list", "--help", "--version", "--print_config"} & set(words)
    if words[:1] == ["compare"] and not shows:
        [(_, path)] = config_places(find_configs(words))
        if Path(path).is_absolute():  # one of those that ship: what they name is tested with the comparison
            read_comparison(path)
            return None
        words = [*words, "--dry_run"]
    elif not shows:
        words = [*words, "--print_config"]
    statuses, errors = [], io.StringIO()
    with redirect_stderr(errors):
        printed = output_of(lambda: statuses.append(main(words)))
    assert statuses == [0], errors.getvalue()
    return printed if shows else None


class Understood(BaseException):
    """A script has read its command line."""


def script(words: list[str]) -> None:
    """A script of the page or the repository, until it has read its command line."""
    file = next((f for f in (Path(words[0]), REPOSITORY / words[0]) if f.is_file()), None)
    assert file is not None, f"there is no {words[0]}"
    if "parse_args" not in file.read_text() and file.parent.name != "benchmarks":
        assert words[1:] == [], "it takes no arguments"
        return
    method = "parse_known_args" if "parse_known_args" in file.read_text() else "parse_args"
    parse = getattr(argparse.ArgumentParser, method)

    def read(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        parse(parser, *args, **kwargs)
        raise Understood

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, method, read)
        patch.setattr(sys, "argv", [str(file), *words[1:]])
        patch.syspath_prepend(file.parent)
        patch.chdir(REPOSITORY)
        with pytest.raises(Understood):
            runpy.run_path(str(file), run_name="__main__")


def one_liner(words: list[str]) -> str:
    return output_of(lambda: exec(words[0], {}))


def these_tests(words: list[str]) -> None:
    for word in words:
        assert word.startswith("-") or (REPOSITORY / word.partition("::")[0]).exists(), f"there is no {word}"


def module_of_tests(words: list[str]) -> None:
    assert words == [] or words[0].startswith("-") or words[0].isidentifier()


def target(words: list[str]) -> None:
    for word in words:
        assert "=" in word or re.search(rf"^{word}:", MAKEFILE, re.MULTILINE), f"make knows no {word}"


def install(words: list[str]) -> None:
    for word in words:
        for extra in re.findall(r"\[([\w,]+)\]", word):
            for part in extra.split(","):
                assert re.search(rf"^{part} = \[", PYPROJECT, re.MULTILINE), f"there is no extra {part}"


def anything(words: list[str]) -> None:
    """Other people's commands."""


COMMANDS: dict[tuple[str, ...], Callable[[list[str]], str | None]] = {
    ("python", "-m", "bayesdual"): of_ours,
    ("bayesdual",): of_ours,
    ("python", "-m", "pytest"): these_tests,
    ("python", "-m", "mkdocs"): anything,
    ("python", "-m", "tests.fuzz.run"): module_of_tests,
    ("python", "-c"): one_liner,
    ("python", "--version"): anything,
    ("python",): script,
    ("make",): target,
    ("pip", "install"): install,
    ("pre-commit",): anything,
    ("python3", "-m", "venv"): anything,
    (".", ".venv/bin/activate"): anything,
    ("git",): anything,
    ("cd",): anything,
    ("tensorboard",): anything,
}
