"""Continual-learning benchmarks: callables that return an Avalanche benchmark.

The names below are imported when first asked for, since importing Avalanche takes seconds;
``bayesdual.scenarios.data`` alone never needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesdual.scenarios.domain import PermutedDigits, PermutedMNIST, RotatedDigits, RotatedMNIST
    from bayesdual.scenarios.split import SplitCIFAR10, SplitCIFAR100, SplitDigits, SplitFMNIST, SplitMNIST

_MODULE_OF = {
    "SplitDigits": "split",
    "SplitMNIST": "split",
    "SplitFMNIST": "split",
    "SplitCIFAR10": "split",
    "SplitCIFAR100": "split",
    "PermutedDigits": "domain",
    "PermutedMNIST": "domain",
    "RotatedDigits": "domain",
    "RotatedMNIST": "domain",
}

__all__ = [
    "PermutedDigits",
    "PermutedMNIST",
    "RotatedDigits",
    "RotatedMNIST",
    "SplitCIFAR10",
    "SplitCIFAR100",
    "SplitDigits",
    "SplitFMNIST",
    "SplitMNIST",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"bayesdual.scenarios has no {name!r}; it has {', '.join(__all__)}.")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
