"""IVON: an optimizer that takes the place of AdamW and learns a posterior over the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.ivon.by_matrix import IVONByMatrix, ivon_by_matrix
from bayesdual.ivon.forward import sample_in_forward
from bayesdual.ivon.ivon_opt import from_ivon_opt
from bayesdual.ivon.optimizer import IVON
from bayesdual.ivon.rule import IVONByRule, ivon_settings
from bayesdual.lazy import attach

__all__ = [
    "IVON",
    "IVONByMatrix",
    "IVONByRule",
    "IVONCallback",
    "from_ivon_opt",
    "ivon_by_matrix",
    "ivon_settings",
    "sample_in_forward",
]

if TYPE_CHECKING:
    from bayesdual.ivon.callback import IVONCallback
else:
    __getattr__, __dir__ = attach(__name__, {"IVONCallback": "callback"}, {"callback": "lightning"})
