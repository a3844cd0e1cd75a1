"""``python -m bayesdual list KIND``: what there is to name in a configuration, with one line each.

Everything is read from the sources, and nothing is imported: importing PyTorch and Avalanche would take seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from importlib import resources
from typing import NamedTuple

from bayesdual import sources
from bayesdual.configuration import CommandLineError, not_among
from bayesdual.scenarios import SCENARIOS

BACKBONES = ("bayesdual.models.EfficientNetLite", "bayesdual.lora.SentenceFeatures")  # which are not trained

Line = tuple[str, str]
"""A name as a configuration gives it, and what it stands for."""


class Kind(NamedTuple):
    """Something that can be listed: how it is given, and its names with what they stand for."""

    given: str
    lines: Callable[[], Iterator[Line]]


def scenarios() -> Iterator[Line]:
    """The benchmarks of ``bayesdual.scenarios``."""
    for name in SCENARIOS:
        yield f"bayesdual.scenarios.{name}", sources.first_line(f"bayesdual.scenarios.{name}")


def networks() -> Iterator[Line]:
    """The public modules of PyTorch in ``bayesdual.models`` and ``bayesdual.lora``, but for backbones."""
    for name, node in (*_public("bayesdual.models"), *_public("bayesdual.lora")):
        is_module = isinstance(node, ast.ClassDef) and any(ast.unparse(b).startswith("nn.") for b in node.bases)
        if is_module and name not in BACKBONES:
            yield name, sources.first_line(name)


def backbones() -> Iterator[Line]:
    """What makes features of inputs, and is not trained."""
    for name in BACKBONES:
        yield name, sources.first_line(name)


def selections() -> Iterator[Line]:
    """The public functions of ``bayesdual.memory`` that take candidates, a number and a generator."""
    for name, node in _public("bayesdual.memory"):
        if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args[:3]] == [
            "candidates",
            "n",
            "generator",
        ]:
            yield name, sources.first_line(name)


def priors() -> Iterator[Line]:
    """The public classes of ``bayesdual.kprior`` with a loss and an update, but for the protocol of them."""
    found: set[str] = set()
    for name, node in _public("bayesdual.kprior"):
        if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
            methods = {method.name for method in node.body if isinstance(method, ast.FunctionDef)}
            if {"loss", "update"} <= methods or found & set(map(ast.unparse, node.bases)):
                found.add(node.name)
                yield name, sources.first_line(name)


def methods() -> Iterator[Line]:
    """The overlays that ship with the package, each with its first comment."""
    folder = resources.files("bayesdual.configs.methods")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            yield f"methods/{file.name}", file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def baselines() -> Iterator[Line]:
    """The keys of ``BASELINES``, each with the docstring of its function."""
    node = sources.definition("bayesdual.strategies.baselines.BASELINES")
    if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Dict):
        for key, function in zip(node.value.keys, node.value.values, strict=True):
            name = f"bayesdual.strategies.baselines.methods.{ast.unparse(function)}"
            yield ast.literal_eval(ast.unparse(key)) if key else "", sources.first_line(name)


KINDS = {
    "scenarios": Kind("--data.benchmark NAME", scenarios),
    "networks": Kind("--model.network NAME", networks),
    "backbones": Kind("--data.benchmark.init_args.backbone NAME, of bayesdual.scenarios.features_of", backbones),
    "selections": Kind("--model.algorithm.init_args.selection NAME", selections),
    "priors": Kind("--model.algorithm.init_args.weight_prior NAME", priors),
    "methods": Kind("--config NAME, after the configuration of a benchmark", methods),
    "baselines": Kind("baseline: NAME, for a method in a configuration of compare", baselines),
}


def main(argv: list[str]) -> None:
    """Prints a list.

    Args:
        argv: The command line, without the word ``list``.

    Raises:
        CommandLineError: It names no kind of thing that can be listed.
    """
    if not argv or argv[0] in ("-h", "--help"):
        lines = [(name, f"given as {kind.given}") for name, kind in KINDS.items()]
        print("usage: python -m bayesdual list KIND\n")
    elif len(argv) > 1:
        raise CommandLineError(f"list takes one kind of thing, and {argv[1]!r} is one more: leave it out.")
    elif argv[0] not in KINDS:
        raise CommandLineError(not_among("kind of thing to list", argv[0], list(KINDS)))
    else:
        lines = list(KINDS[argv[0]].lines())
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in lines))


def _public(package: str) -> Iterator[tuple[str, ast.stmt | None]]:
    """The dotted names of ``__all__`` of a package, each with the statement that defines it."""
    node = sources.definition(f"{package}.__all__")
    assert isinstance(node, ast.Assign), f"{package} has no __all__"
    for name in ast.literal_eval(node.value):
        yield f"{package}.{name}", sources.definition(f"{package}.{name}")
