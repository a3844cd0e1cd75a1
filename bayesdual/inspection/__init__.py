"""What people look at: progress, tables and figures."""

from bayesdual.extras import require

require("bayesdual.inspection", "all")

from bayesdual.inspection.callbacks import RunReport, StreamProgress
from bayesdual.inspection.figures import accuracy_figure, is_images, memory_figure, progress_figure
from bayesdual.inspection.tables import accuracy_tables, evaluation_table, summary

__all__ = [
    "RunReport",
    "StreamProgress",
    "accuracy_figure",
    "accuracy_tables",
    "evaluation_table",
    "is_images",
    "memory_figure",
    "progress_figure",
    "summary",
]
