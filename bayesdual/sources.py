"""Which code makes a result: a digest of the sources that it depends on, read and never imported.

What a thing depends on is the module that it stands in, and whatever that module imports, name by name: ``from
bayesdual.learner import History`` leads through the package's ``__init__`` to the module that defines ``History``, and
to none of its neighbours. Counted are bayesdual and the user's own modules, but not the standard library and installed
packages, nor what plans runs, keeps them and shows them: what that decides stands in the settings of a run. Comments,
docstrings and formatting do not count either.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

LENGTH = 16  # hexadecimal digits of a digest
SHORT = 8  # of these are shown
MAKES_NO_RESULTS = tuple(f"bayesdual.{package}." for package in ("cli", "comparison", "configuration", "inspection"))
BUT_FOR = "bayesdual.comparison.ours"  # which learns
INSTALLED = {"site-packages", "dist-packages"}


@cache
def digest(*names: str) -> str:
    """The digest of the code behind dotted names.

    Args:
        names: Of functions, classes or modules; those that are not counted, or lead nowhere, add nothing.

    Returns:
        ``LENGTH`` hexadecimal digits.
    """
    return _digest(modules_behind(names))


@cache
def digest_of_all() -> str:
    """The digest of all sources of bayesdual as they were when first asked for; it changes with whatever does."""
    folder = Path(__file__).parent
    return _digest(
        {
            ".".join((Path(place) / name).relative_to(folder).with_suffix("").parts): Path(place) / name
            for place, _, names in os.walk(folder, followlinks=True)
            for name in names
            if name.endswith(".py")
        }
    )


def _digest(modules: Mapping[str, Path]) -> str:
    content = hashlib.sha256()
    for module, path in sorted(modules.items()):
        content.update(f"{module}\n{_meaning(parsed(path))}\n".encode())
    return content.hexdigest()[:LENGTH]


def modules_behind(names: Iterable[str]) -> dict[str, Path]:
    """The modules that count for dotted names, each with its file."""
    found: dict[str, Path] = {}
    waiting, seen = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        module, path, rest = locate(name)
        if path is None or (module.startswith(MAKES_NO_RESULTS) and module != BUT_FOR):
            continue
        origin = _imported_as(path, module).get(rest[0]) if rest and path.name == "__init__.py" else None
        if origin is not None:
            waiting.append(".".join([origin, *rest[1:]]))
        elif module not in found:
            found[module] = path
            waiting += imports(path, module)
        if not module.startswith("bayesdual."):  # a package of the user's may do more in its __init__ than hand on
            waiting += [package for package in [module.rpartition(".")[0]] if package]
    return found


def locate(name: str) -> tuple[str, Path | None, list[str]]:
    """Finds the module of a dotted name.

    Returns:
        The module, its file (None: there is none that counts), and the parts of the name that lie within it.
    """
    top, *parts = name.split(".")
    path, folders = _top_level(top)
    module = top
    while parts and folders:
        below = _in_folders(folders, parts[0])
        if below == (None, []):
            break
        path, folders = below
        module = f"{module}.{parts.pop(0)}"
    return module, path, parts


def definition(name: str) -> ast.stmt | None:
    """The statement that defines a function, a class or a constant, by its dotted name; None if there is none."""
    module, path, rest = locate(name)
    if path is None or len(rest) != 1:
        return None
    if (origin := _imported_as(path, module).get(rest[0])) is not None:
        return definition(origin)
    return next((node for node in parsed(path).body if rest[0] in _names_of(node)), None)


def first_line(name: str) -> str:
    """The first line of the docstring of a function or class, by its dotted name; empty if there is none."""
    node = definition(name)
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return ""
    return (ast.get_docstring(node) or "").partition("\n")[0]


def imports(path: Path, module: str) -> list[str]:
    """The dotted names that a module imports, wherever in it."""
    names = [alias.name for node in ast.walk(parsed(path)) if isinstance(node, ast.Import) for alias in node.names]
    for source, alias in _imports_from(path, module):
        names.append(source if alias.name == "*" else f"{source}.{alias.name}")
    return names


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, as the file was when first asked for."""
    return ast.parse(path.read_bytes())


@cache
def _top_level(name: str) -> tuple[Path | None, list[Path]]:
    """File and folders of a top-level module that counts."""
    if name in sys.stdlib_module_names:
        return None, []
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a name that cannot be one, or a module that was made by hand
        return None, []
    if spec is None:
        return None, []
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    path = Path(spec.origin) if spec.has_location and spec.origin and spec.origin.endswith(".py") else None
    places = folders if path is None else [path]
    if name != "bayesdual" and any(INSTALLED & set(place.parts) for place in places):
        return None, []
    return path, folders


def _in_folders(folders: Iterable[Path], name: str) -> tuple[Path | None, list[Path]]:
    """File and folders of a module below a package."""
    for folder in folders:
        if (folder / name / "__init__.py").is_file():
            return folder / name / "__init__.py", [folder / name]
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py", []
    return None, [folder / name for folder in folders if (folder / name).is_dir()]


def _imports_from(path: Path, module: str) -> Iterator[tuple[str, ast.alias]]:
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((source, alias) for alias in node.names)


@cache
def _imported_as(path: Path, module: str) -> dict[str, str]:
    """The names that a module has from others, each with its dotted name there."""
    return {alias.asname or alias.name: f"{source}.{alias.name}" for source, alias in _imports_from(path, module)}


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _meaning(node: object) -> str:
    """A syntax tree as text, without docstrings, and without fields that are empty, which versions of Python add."""
    if isinstance(node, list):
        return "[" + ",".join(map(_meaning, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _has_docstring(node):
        fields["body"] = node.body[1:]
    return f"{type(node).__name__}(" + ",".join(f"{name}={_meaning(value)}" for name, value in fields.items()) + ")"


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
