"""What people look at: progress, tables and figures."""

from bayesdual.extras import require

require("bayesdual.inspection", "all")

from bayesdual.inspection.answer_figures import (
    certainty_figure,
    classes_figure,
    confusion_figure,
    reliability_figure,
)
from bayesdual.inspection.board import StreamBoard
from bayesdual.inspection.callbacks import RunReport, StreamProgress
from bayesdual.inspection.figures import (
    accuracy_figure,
    losses_figure,
    parts_figure,
    posterior_figure,
    progress_figure,
)
from bayesdual.inspection.memory_figures import is_images, memory_figure
from bayesdual.inspection.page import can_be_live
from bayesdual.inspection.predictions import KeptPredictions, Predictions, matrix_of, read_predictions
from bayesdual.inspection.report import drawn, figures_of, report
from bayesdual.inspection.runs import Run, read_run
from bayesdual.inspection.standing import (
    Standing,
    by_experience,
    leave,
    pictures_of,
    save_map,
    save_pictures,
    stream_figures,
)
from bayesdual.inspection.tables import accuracy_tables, evaluation_table, score_of, summary
from bayesdual.inspection.verdict import classes_lost, lost, verdict

__all__ = [
    "KeptPredictions",
    "Predictions",
    "Run",
    "RunReport",
    "Standing",
    "StreamBoard",
    "StreamProgress",
    "accuracy_figure",
    "accuracy_tables",
    "by_experience",
    "can_be_live",
    "certainty_figure",
    "classes_lost",
    "classes_figure",
    "confusion_figure",
    "drawn",
    "evaluation_table",
    "figures_of",
    "is_images",
    "leave",
    "losses_figure",
    "lost",
    "matrix_of",
    "memory_figure",
    "parts_figure",
    "pictures_of",
    "posterior_figure",
    "progress_figure",
    "read_predictions",
    "read_run",
    "reliability_figure",
    "report",
    "save_map",
    "save_pictures",
    "score_of",
    "stream_figures",
    "summary",
    "verdict",
]
