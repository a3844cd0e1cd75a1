"""Conformal prediction: sets that cover, by regression as classification and others, and over a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.conformal.aps import aps_scores
from bayesdual.conformal.bins import grid_by_quantile, grid_by_range, interpolate, two_hot, widths
from bayesdual.conformal.cqr import CQR
from bayesdual.conformal.lac import lac_scores
from bayesdual.conformal.martingale import alarm, jumper_martingale, p_values
from bayesdual.conformal.method import Method
from bayesdual.conformal.normalised import Normalised
from bayesdual.conformal.quantile import calibration_examples_needed, check_alpha, conformal_quantile
from bayesdual.conformal.raps import raps_scores
from bayesdual.conformal.regression_as_classification import (
    LOSSES,
    RegressionAsClassification,
    blurred_loss,
    published_loss,
    two_hot_loss,
)
from bayesdual.conformal.sets import Interval, Sets, covered, lengths, superlevel_sets
from bayesdual.conformal.split import Split
from bayesdual.conformal.stream import keep_for_calibration, one_threshold, thresholds_by_experience
from bayesdual.conformal.training import Fitted, Training, fit_folds
from bayesdual.lazy import attach

__all__ = [
    "CQR",
    "LOSSES",
    "BinnedRegression",
    "ConformalRegressor",
    "Fitted",
    "Interval",
    "Method",
    "Normalised",
    "RegressionAsClassification",
    "Sets",
    "Split",
    "Training",
    "alarm",
    "aps_scores",
    "blurred_loss",
    "calibration_examples_needed",
    "check_alpha",
    "conformal_quantile",
    "covered",
    "fit_folds",
    "grid_by_quantile",
    "grid_by_range",
    "interpolate",
    "jumper_martingale",
    "keep_for_calibration",
    "lac_scores",
    "lengths",
    "one_threshold",
    "p_values",
    "published_loss",
    "raps_scores",
    "superlevel_sets",
    "thresholds_by_experience",
    "two_hot",
    "two_hot_loss",
    "widths",
]

if TYPE_CHECKING:
    from bayesdual.conformal.module import BinnedRegression
    from bayesdual.conformal.regressor import ConformalRegressor
else:
    _LAZY = {"BinnedRegression": "module", "ConformalRegressor": "regressor"}
    __getattr__, __dir__ = attach(__name__, _LAZY, {"module": "lightning", "regressor": "sklearn"})
