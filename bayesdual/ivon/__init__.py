"""IVON: an optimizer that takes the place of AdamW and learns a posterior over the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bayesdual.ivon.checks import warn_of_sum
from bayesdual.ivon.noise import standard_normal_
from bayesdual.ivon.optimizer import IVON
from bayesdual.ivon.rule import IVONByRule, ivon_settings
from bayesdual.ivon.scratch import spare

__all__ = ["IVON", "IVONByRule", "IVONCallback", "ivon_settings", "spare", "standard_normal_", "warn_of_sum"]

if TYPE_CHECKING:
    from bayesdual.ivon.callback import IVONCallback


def __getattr__(name: str) -> Any:
    """The callback needs Lightning, which the optimizer alone does not."""
    if name == "IVONCallback":
        from bayesdual.ivon.callback import IVONCallback

        return IVONCallback
    raise AttributeError(f"bayesdual.ivon has no {name!r}.")
