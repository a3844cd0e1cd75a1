"""``compare``: methods x seeds x benchmarks, ours and baselines, tuned by the same budget."""

from bayesdual.comparison.command import RunError, be_quiet, run
from bayesdual.comparison.executors import attempt
from bayesdual.comparison.ours import learn, made
from bayesdual.comparison.plan import Method, read_comparison
from bayesdual.comparison.report import blocks_of, comma_separated, comparison_figure, markdown, short
from bayesdual.comparison.statistics import Entry, rows_of

__all__ = [
    "Entry",
    "Method",
    "RunError",
    "attempt",
    "be_quiet",
    "blocks_of",
    "comma_separated",
    "comparison_figure",
    "learn",
    "made",
    "markdown",
    "read_comparison",
    "rows_of",
    "run",
    "short",
]
