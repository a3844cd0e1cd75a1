"""Models that were trained from a common base, made one: each by what it is sure of; and examples taken out."""

from bayesdual.merging.average import average
from bayesdual.merging.block import Block
from bayesdual.merging.experts import Experts
from bayesdual.merging.fisher import fisher
from bayesdual.merging.gradient_matching import gradient_matching
from bayesdual.merging.merge import merge
from bayesdual.merging.merge_files import merge_files
from bayesdual.merging.refit import refit_last_layer
from bayesdual.merging.regmean import regmean
from bayesdual.merging.remove import remove
from bayesdual.merging.streaming import METHODS, Method
from bayesdual.merging.task_arithmetic import task_arithmetic
from bayesdual.merging.ties import ties

__all__ = [
    "METHODS",
    "Block",
    "Experts",
    "Method",
    "average",
    "fisher",
    "gradient_matching",
    "merge",
    "merge_files",
    "refit_last_layer",
    "regmean",
    "remove",
    "task_arithmetic",
    "ties",
]
