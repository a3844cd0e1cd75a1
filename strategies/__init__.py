"""The Avalanche host: the algorithm as a strategy and as a plugin, and parts of it for Avalanche's own replay."""

from bayesdual.extras import require

require("bayesdual.strategies", "avalanche")

from bayesdual.strategies.checkpoint import load_checkpoint, save_checkpoint
from bayesdual.strategies.plugin import BayesDualPlugin
from bayesdual.strategies.storage import SelectedExemplarsBuffer, SelectionStrategy
from bayesdual.strategies.strategy import BayesDualStrategy

BayesDual = BayesDualStrategy  # its name before 0.2

__all__ = [
    "BayesDual",
    "BayesDualPlugin",
    "BayesDualStrategy",
    "SelectedExemplarsBuffer",
    "SelectionStrategy",
    "load_checkpoint",
    "save_checkpoint",
]
