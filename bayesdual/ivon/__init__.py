"""IVON: an optimizer that takes the place of AdamW and learns a posterior over the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bayesdual.ivon.optimizer import IVON
from bayesdual.ivon.rule import IVONByRule, ivon_settings

if TYPE_CHECKING:
    from bayesdual.ivon.callback import IVONCallback

__all__ = ["IVON", "IVONByRule", "IVONCallback", "ivon_settings"]


def __getattr__(name: str) -> Any:
    """The callback needs Lightning, which the optimizer alone does not."""
    if name == "IVONCallback":
        from bayesdual.ivon.callback import IVONCallback

        return IVONCallback
    raise AttributeError(f"bayesdual.ivon has no {name!r}.")
