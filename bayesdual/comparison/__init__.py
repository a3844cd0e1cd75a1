"""``compare``: methods x seeds x benchmarks, ours and baselines, tuned by the same budget."""

from bayesdual.extras import require

require("bayesdual.comparison", "all")

from bayesdual.comparison.command import RunError, be_quiet, main
from bayesdual.comparison.executors import attempt
from bayesdual.comparison.ours import learn, objects_of
from bayesdual.comparison.plan import Method, read_comparison
from bayesdual.comparison.report import blocks_of, comma_separated, comparison_figure, markdown, said_p, short
from bayesdual.comparison.statistics import Entry, rows_of, sign_flip_p, smallest_p
from bayesdual.comparison.store import Cell, Run, Store, dotted_names, made_by

__all__ = [
    "Cell",
    "Entry",
    "Method",
    "Run",
    "RunError",
    "Store",
    "attempt",
    "be_quiet",
    "blocks_of",
    "comma_separated",
    "comparison_figure",
    "dotted_names",
    "learn",
    "made_by",
    "main",
    "markdown",
    "objects_of",
    "read_comparison",
    "rows_of",
    "said_p",
    "short",
    "sign_flip_p",
    "smallest_p",
]
