"""Names of a package that are imported when first asked for, so that nobody waits for what they do not use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from bayesdual.extras import require


def attach(
    package: str, homes: Mapping[str, str], extras: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Gives a package its names lazily (PEP 562)::

        if TYPE_CHECKING:
            from bayesdual.learner import Learner
        else:
            __getattr__, __dir__ = attach(__name__, {"Learner": "learner"})

    Type checkers read the first branch, and so refuse names that are not there.

    Args:
        package: The package's ``__name__``; it has an ``__all__``.
        homes: The module in it that each lazy name comes from.
        extras: The extra of the installation that a module needs, for those that need one.

    Returns:
        The package's ``__getattr__`` and ``__dir__``. The former raises ``AttributeError`` for a name that is not
        there, and ``MissingExtra`` for one whose extra is not installed.
    """
    module = sys.modules[package]

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"{package} has no {name!r}; it has {', '.join(module.__all__)}.")
        if extras and homes[name] in extras:
            require(f"{package}.{name}", extras[homes[name]])
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return get, lambda: sorted({*vars(module), *module.__all__})
