"""The face that scikit-learn knows: fit, predict, and sets that cover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from bayesdual.conformal.bins import GRIDS, GridName
from bayesdual.conformal.cqr import CQR
from bayesdual.conformal.method import Method
from bayesdual.conformal.normalised import Normalised
from bayesdual.conformal.quantile import check_alpha, conformal_quantile
from bayesdual.conformal.regression_as_classification import LOSSES, RegressionAsClassification, two_hot_loss
from bayesdual.conformal.sets import Sets
from bayesdual.conformal.split import Split
from bayesdual.conformal.training import OptimizerName, Training, fit_folds
from bayesdual.models import MLP

MethodName = Literal["best", "published", "two-hot", "blurred", "coarse", "split", "normalised", "cqr"]
BINNED = (*LOSSES, "coarse")  # what the best is chosen from
OTHERS = ("split", "normalised", "cqr")
COARSE = 0.4  # of the bins


class ConformalRegressor(RegressorMixin, BaseEstimator):
    """A regressor whose prediction sets cover the target with probability 1 - alpha, whatever the data.

    ``fit`` sets a part aside, trains networks on the rest (one for each fold), and scores the part set aside. Sets are
    unions of intervals where a density over bins of the target is high, or intervals by one of the older methods.

    Args:
        method: ``published``, ``two-hot`` or ``blurred``: regression as classification with this loss (see
            ``regression_as_classification.py``); ``coarse``: two-hot with two fifths of the bins; ``best``: that of
            these four with the shortest sets on examples that were not trained on; or ``split``, ``normalised``,
            ``cqr``.
        alpha: Share of errors at which ``best`` compares lengths, CQR learns quantiles, and sets are made unless
            ``predict_set`` is given another.
        bins: Number of grid points.
        bins_by: ``range``: at equal distances; ``quantile``: dense where targets are.
        network: Makes a network of its numbers of inputs and outputs; None: a perceptron with two hidden layers of 64.
        optimizer: ``ivon`` or ``adamw``.
        lr_factor: Multiplies the learning rate.
        epochs: Of each network.
        batch_size: Examples of a step.
        samples: Of IVON's posterior, that each network speaks by.
        folds: Number of networks, at least 2.
        calibration_share: Share of the examples that is set aside.
        random_state: Seed of all that is random, as everywhere in scikit-learn.

    Attributes:
        method_: The method that was chosen.
        lengths_: Mean length of sets of each method tried, on examples not trained on, by name.
        scores_: Nonconformity scores of the calibration examples, shape (n,).
    """

    def __init__(
        self,
        method: MethodName = "best",
        *,
        alpha: float = 0.1,
        bins: int = 50,
        bins_by: GridName = "range",
        network: Callable[[int, int], nn.Module] | None = None,
        optimizer: OptimizerName = "ivon",
        lr_factor: float = 1.0,
        epochs: int = 60,
        batch_size: int = 64,
        samples: int = 8,
        folds: int = 5,
        calibration_share: float = 0.2,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.alpha = alpha
        self.bins = bins
        self.bins_by = bins_by
        self.network = network
        self.optimizer: OptimizerName = optimizer
        self.lr_factor = lr_factor
        self.epochs = epochs
        self.batch_size = batch_size
        self.samples = samples
        self.folds = folds
        self.calibration_share = calibration_share
        self.random_state = random_state

    def fit(self, X: Any, y: Any, X_calibration: Any = None, y_calibration: Any = None) -> ConformalRegressor:
        """Trains and calibrates.

        Args:
            X: Inputs, shape (n, features).
            y: Targets, shape (n,).
            X_calibration: Inputs to calibrate on, none of which is in ``X``; None: a part of ``X`` is set aside.
            y_calibration: Their targets.

        Raises:
            ValueError: An argument is out of its range; targets are several a row, not finite, or all the same; there
                are too few examples.
        """
        self._check_arguments()
        X, y = validate_data(self, X, _targets(y), dtype=np.float32, y_numeric=True, ensure_min_samples=2 + self.folds)
        draw = check_random_state(self.random_state)
        order = draw.permutation(len(y))
        if X_calibration is None:
            aside, rest = np.split(order, [max(1, round(self.calibration_share * len(y)))])
            X, y, X_calibration, y_calibration = X[rest], y[rest], X[aside], y[aside]
        if np.ptp(y) == 0:
            raise ValueError(f"the target is constant ({y[0]:g}): there is nothing to predict.")
        self._x_mean, self._x_std = X.mean(0), X.std(0)
        self._x_std[self._x_std == 0] = 1
        self._y_mean, self._y_std = float(y.mean()), float(y.std())
        self._train(self._inputs(X), torch.from_numpy((y - self._y_mean) / self._y_std).float(), draw)
        return self.calibrate(X_calibration, y_calibration)

    def calibrate(self, X: Any, y: Any) -> ConformalRegressor:
        """Calibrates again, on other examples that the networks were not trained on. See :meth:`fit`."""
        check_is_fitted(self, "method_")
        X, y = validate_data(self, X, _targets(y), dtype=np.float32, y_numeric=True, reset=False)
        y = torch.from_numpy((y - self._y_mean) / self._y_std)
        self.scores_ = self._method.score(self._said(X), y).numpy()
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The mean of what is predicted (CQR: the median), shape (n,)."""
        check_is_fitted(self, "scores_")
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return self._method.mean(self._said(X)).numpy() * self._y_std + self._y_mean

    def predict_set(self, X: Any, alpha: float | None = None) -> Sets:
        """Sets that cover.

        Args:
            X: Inputs, shape (n, features).
            alpha: Share of errors; None: that of the constructor.

        Returns:
            For each row a list of intervals (low, high), disjoint and ascending.

        Raises:
            ValueError: ``alpha`` is out of its range, or too small for so few calibration examples.
        """
        check_is_fitted(self, "scores_")
        q = conformal_quantile(torch.from_numpy(self.scores_), self.alpha if alpha is None else alpha)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        sets = self._method.sets(self._said(X), q)
        return [[(a * self._y_std + self._y_mean, b * self._y_std + self._y_mean) for a, b in row] for row in sets]

    def _check_arguments(self) -> None:
        check_alpha(self.alpha)
        known = ("best", *BINNED, *OTHERS)
        for name, value, choices in (
            ("method", self.method, known),
            ("bins_by", self.bins_by, tuple(GRIDS)),
            ("optimizer", self.optimizer, ("ivon", "adamw")),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}: give one of {', '.join(choices)}.")
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}: give at least 2.")
        if not 0 < self.calibration_share < 1:
            raise ValueError(f"calibration_share is {self.calibration_share}: give a share between 0 and 1.")

    def _train(self, x: Tensor, y: Tensor, draw: np.random.RandomState) -> None:
        """Trains each method that is asked for, and keeps the one of the shortest sets."""
        training = Training(self.optimizer, self.epochs, self.batch_size, self.lr_factor, self.samples)
        make = self.network or _perceptron
        folds = torch.from_numpy(draw.permutation(len(y))).tensor_split(self.folds)
        tried = {}
        for name in BINNED if self.method == "best" else (self.method,):
            method = self._make_method(name, y)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(draw.randint(2**31))
                generator = torch.Generator().manual_seed(draw.randint(2**31))
                network = lambda method=method: make(x.shape[1], method.outputs)  # noqa: E731
                fitted = fit_folds(network, method, x, y, folds, self.alpha, training, generator)
            tried[name] = method, fitted
        self.lengths_ = {name: fitted.length * self._y_std for name, (_, fitted) in tried.items()}
        self.method_ = min(self.lengths_, key=lambda name: self.lengths_[name])
        self._method, self._fitted = tried[self.method_]

    def _make_method(self, name: str, y: Tensor) -> Method:
        if name in BINNED:
            bins = max(2, round(COARSE * self.bins)) if name == "coarse" else self.bins
            return RegressionAsClassification(GRIDS[self.bins_by](y, bins), LOSSES.get(name, two_hot_loss))
        others: dict[str, Callable[[], Method]] = {
            "split": Split,
            "normalised": Normalised,
            "cqr": lambda: CQR(self.alpha),
        }
        return others[name]()

    def _inputs(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy((X - self._x_mean) / self._x_std)

    def _said(self, X: np.ndarray) -> Tensor:
        return self._fitted.say(self._method, self._inputs(X))


def _perceptron(inputs: int, outputs: int) -> nn.Module:
    return MLP(inputs, (64, 64), outputs)


def _targets(y: Any) -> Any:
    """Targets (n,), an array in float64.

    Raises:
        ValueError: There are several a row, or some are not finite.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None.")
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(f"y has {y.shape[1]} targets a row: fit one ConformalRegressor for each.")
    y = column_or_1d(y, warn=True).astype(np.float64)
    wrong = int((~np.isfinite(y)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {len(y)} targets are NaN or infinite: leave these rows out.")
    return y
