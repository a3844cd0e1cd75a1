"""Continual learning with a variational posterior and a memory of memorable examples.

The names below are imported when first asked for: who wants the optimizer alone waits for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.lazy import attach

__version__ = "0.2.0"

__all__ = [
    "IVON",
    "BayesDual",
    "KroneckerPrior",
    "Learner",
    "Posterior",
    "StreamDataModule",
    "__version__",
    "function_variance",
    "load",
    "sensitivities",
]

if TYPE_CHECKING:
    from bayesdual.algorithm import BayesDual
    from bayesdual.ivon import IVON
    from bayesdual.kprior import KroneckerPrior
    from bayesdual.learner import Learner, StreamDataModule
    from bayesdual.posterior import Posterior, function_variance, sensitivities
    from bayesdual.serving import load
else:
    _HOMES = {
        "BayesDual": "algorithm",
        "IVON": "ivon",
        "KroneckerPrior": "kprior",
        "Learner": "learner",
        "Posterior": "posterior",
        "StreamDataModule": "learner",
        "function_variance": "posterior",
        "load": "serving",
        "sensitivities": "posterior",
    }
    __getattr__, __dir__ = attach(__name__, _HOMES, {"learner": "lightning"})
