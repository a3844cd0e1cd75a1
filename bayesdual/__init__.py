"""Continual learning with a variational posterior and a memory of memorable examples.

The names below are imported when first asked for: who wants the optimizer alone waits for nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesdual.algorithm import BayesDual
    from bayesdual.ivon import IVON
    from bayesdual.kprior import KroneckerPrior
    from bayesdual.learner import Learner, StreamDataModule
    from bayesdual.posterior import Posterior, function_variance, sensitivities

__version__ = "0.2.0"

_HOMES = {
    "BayesDual": "algorithm",
    "IVON": "ivon",
    "KroneckerPrior": "kprior",
    "Learner": "learner",
    "Posterior": "posterior",
    "StreamDataModule": "learner",
    "function_variance": "posterior",
    "sensitivities": "posterior",
}

__all__ = [
    "IVON",
    "BayesDual",
    "KroneckerPrior",
    "Learner",
    "Posterior",
    "StreamDataModule",
    "__version__",
    "function_variance",
    "sensitivities",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"bayesdual has no {name!r}; it has {', '.join(__all__)}.")
    return getattr(import_module(f"bayesdual.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
