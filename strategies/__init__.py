"""The Avalanche host: the algorithm as a strategy and as a plugin, and parts of it for Avalanche's own replay."""

from typing import TYPE_CHECKING

from bayesdual.extras import require
from bayesdual.lazy import attach

require("bayesdual.strategies", "avalanche")

from bayesdual.strategies.checkpoint import load_checkpoint, save_checkpoint
from bayesdual.strategies.merging import MergingPlugin
from bayesdual.strategies.plugin import BayesDualPlugin
from bayesdual.strategies.storage import SelectedExemplarsBuffer, SelectionStrategy
from bayesdual.strategies.strategy import BayesDualStrategy

if TYPE_CHECKING:
    from bayesdual.strategies.report import StreamReport
else:
    __getattr__, __dir__ = attach(__name__, {"StreamReport": "report"}, {"report": "all"})

BayesDual = BayesDualStrategy  # its name before 0.2

__all__ = [
    "BayesDual",
    "BayesDualPlugin",
    "BayesDualStrategy",
    "MergingPlugin",
    "SelectedExemplarsBuffer",
    "SelectionStrategy",
    "StreamReport",
    "load_checkpoint",
    "save_checkpoint",
]
