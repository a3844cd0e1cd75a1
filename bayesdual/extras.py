"""What is installed on request, in extras, and the one sentence where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

_LIGHTNING = ("lightning", "torchmetrics")
_AVALANCHE = ("avalanche", "sklearn", "torchvision")
_COMMANDS = ("filelock", "jsonargparse", "matplotlib", "omegaconf", "rich", "tensorboard", "yaml")
MODULES = {
    "lightning": _LIGHTNING,
    "avalanche": _AVALANCHE,
    "sklearn": ("sklearn",),
    "transformers": ("accelerate", "transformers"),
    "lora": ("peft", "transformers"),
    "all": (*_LIGHTNING, *_AVALANCHE, *_COMMANDS),
}
"""The modules that extras of ``pyproject.toml`` bring."""


class MissingExtra(ModuleNotFoundError):
    """A part of the package needs what is not installed."""


def require(what: str, extra: str) -> None:
    """Sees that an extra is installed, without importing anything of it.

    Args:
        what: The part of the package that needs it, as people name it.
        extra: A key of ``MODULES``.

    Raises:
        MissingExtra: A module of the extra is not there.
    """
    for module in MODULES[extra]:
        if find_spec(module) is None:
            raise MissingExtra(
                f"{what} needs {module}, which is not installed: pip install 'bayesdual[{extra}]'.", name=module
            )
