"""What a run has learned, as a plain object that predicts: no Lightning, no benchmark, no configuration to give."""

from bayesdual.serving.from_run import load
from bayesdual.serving.inputs import Rows, read_inputs
from bayesdual.serving.predictor import Predictor
from bayesdual.serving.to_files import export

__all__ = ["Predictor", "Rows", "export", "load", "read_inputs"]
