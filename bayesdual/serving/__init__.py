"""What a run has learned, as a plain object that predicts: no Lightning, no benchmark, no configuration to give."""

from bayesdual.serving.export import export
from bayesdual.serving.inputs import Rows, read_inputs
from bayesdual.serving.load import load
from bayesdual.serving.predictor import Predictor

__all__ = ["Predictor", "Rows", "export", "load", "read_inputs"]
