"""What is installed on request, in extras, and the one sentence where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

MODULES = {
    "lightning": ("lightning", "torchmetrics"),
    "avalanche": ("avalanche", "sklearn", "torchvision"),
    "cli": ("filelock", "jsonargparse", "matplotlib", "omegaconf", "rich", "scipy", "tensorboard", "yaml"),
}
"""The modules that each extra of ``pyproject.toml`` brings."""


class MissingExtra(ModuleNotFoundError):
    """A part of the package needs what is not installed."""


def require(what: str, *extras: str) -> None:
    """Sees that extras are installed, without importing them.

    Args:
        what: The part of the package that needs them, as people name it.
        extras: Keys of ``MODULES``.

    Raises:
        MissingExtra: A module of theirs is not there.
    """
    for extra in extras:
        for module in MODULES[extra]:
            if find_spec(module) is None:
                raise MissingExtra(
                    f"{what} needs {module}, which is not installed: pip install 'bayesdual[{extra}]'.", name=module
                )
