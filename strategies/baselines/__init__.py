"""Avalanche's strategies as baselines in a comparison: with the model, stream, epochs, memory and measures of ours."""

from bayesdual.extras import require

require("bayesdual.strategies.baselines", "all")

from bayesdual.strategies.baselines.methods import BASELINES, baseline_named, bound
from bayesdual.strategies.baselines.run import learn
from bayesdual.strategies.baselines.settings import plan

__all__ = ["BASELINES", "baseline_named", "bound", "learn", "plan"]
