"""Objects by dotted names that stand in files: from any module, or only from those that a caller allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import Any

_ALLOWED: ContextVar[tuple[str, ...]] = ContextVar("allowed", default=())


class NotAllowed(ImportError):
    """A name leads to a module that was not allowed."""


@contextmanager
def only_from(modules: Sequence[str]) -> Iterator[None]:
    """Allows names of these modules, and of modules below them, alone; none given: of any."""
    token = _ALLOWED.set(tuple(modules))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def allowed() -> tuple[str, ...]:
    """The modules that are allowed; empty: all."""
    return _ALLOWED.get()


def is_of(name: str, modules: Sequence[str]) -> bool:
    """Whether a dotted name is one of these, or below one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def refuse_others(name: str) -> None:
    """Refuses a dotted name of a module that is not allowed, before anything is imported.

    Raises:
        NotAllowed: It is one.
    """
    if allowed() and not is_of(name, allowed()):
        raise NotAllowed(f"{name} is not of {', '.join(allowed())}, and --only-from allows no other module")


def module_named(name: str) -> ModuleType:
    """The module of a dotted name.

    Raises:
        ImportError: It is not there, or not allowed.
    """
    refuse_others(name)
    return import_module(name)


def named(dotted: str) -> Any:
    """The object of a dotted name, ``MODULE.NAME``.

    Raises:
        ImportError: Its module is not there, or one of the two, where it is named and where it is defined, is not
            allowed.
        AttributeError: The module has nothing of that name.
    """
    module, _, name = dotted.rpartition(".")
    found = getattr(module_named(module), name)
    if isinstance(home := getattr(found, "__module__", None), str):
        refuse_others(home)
    return found
