"""The face that scikit-learn knows: a classifier and a regressor whose every ``partial_fit`` is an experience."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bayesdual.algorithm import BayesDual
from bayesdual.extras import require
from bayesdual.ivon import IVONByRule
from bayesdual.likelihoods import Likelihood, likelihood_by
from bayesdual.models import MLP, evaluating
from bayesdual.posterior import Posterior
from bayesdual.schedule import lower_learning_rate
from bayesdual.stream import TensorData, TensorLoader

require("bayesdual.sklearn", "sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets, unique_labels  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402


class _Continual(BaseEstimator):
    """What both learn alike; an estimator says which targets there are."""

    network_: nn.Module
    algorithm_: BayesDual
    n_experiences_: int

    def __init__(
        self,
        memory_size: int,
        hidden: Sequence[int],
        network: Callable[[int, int], nn.Module] | None,
        epochs: int,
        batch_size: int,
        lr_factor: float,
        random_state: int | np.random.RandomState | None,
    ) -> None:
        self.memory_size = memory_size
        self.hidden = hidden
        self.network = network
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr_factor = lr_factor
        self.random_state = random_state

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """PyTorch's generator as ``random_state`` has it while entered, and as it was afterwards."""
        self._check_counts()
        draw = check_random_state(self.random_state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.randint(2**31))
            yield

    def _begin(self, X: np.ndarray, algorithm: BayesDual, outputs: int) -> None:
        """Takes the first experience's scale, and makes a network."""
        self.network_ = (self.network or self._perceptron)(X.shape[1], outputs)
        self.algorithm_, self.n_experiences_ = algorithm, 0
        self._mean, self._std = X.mean(0), X.std(0)
        self._std[self._std == 0] = 1

    def _check_counts(self) -> None:
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(f"epochs is {self.epochs} and batch_size {self.batch_size}: give at least 1.")

    def _learn_experience(self, data: TensorData) -> None:
        network, algorithm = self.network_, self.algorithm_
        algorithm.begin_experience(data)
        steps = self.epochs * -(-len(data) // self.batch_size)
        optimizer = IVONByRule(self.lr_factor).make(network.parameters(), len(data), steps)
        seed, done = int(torch.randint(2**31, ())), 0

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return network(x)

        network.train()
        for epoch in range(self.epochs):
            for batch in TensorLoader(data, self.batch_size, seed + epoch):
                lower_learning_rate(optimizer, 0.0, done / steps)
                with optimizer.sampled_params(train=True):
                    optimizer.zero_grad()
                    loss, _ = algorithm.loss(network, predict, *batch)
                    loss.backward()
                algorithm.precondition(network)
                optimizer.step()
                done += 1
        with evaluating(network):
            posterior = Posterior.of(network, optimizer)
            algorithm.end_experience(network, predict, data, self.n_experiences_, posterior)
        self.n_experiences_ += 1

    def _predicted(self, X: Any) -> np.ndarray:
        """What the likelihood predicts of inputs (n, features), shape (n, C)."""
        check_is_fitted(self, "network_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        network = deepcopy(self.network_).double()  # so that a row says the same in any company
        with torch.no_grad(), evaluating(network):
            return self.algorithm_.likelihood.predicted(network(self._inputs(X))).numpy()

    def _perceptron(self, features: int, outputs: int) -> nn.Module:
        return MLP(features, self.hidden, outputs)

    def _inputs(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy((X - self._mean) / self._std)


class ContinualClassifier(ClassifierMixin, _Continual):
    """Learns a table part by part, and keeps what it knew: ``partial_fit`` learns an experience, ``fit`` only one.

    Columns are standardised by the first experience. The algorithm is that of :class:`bayesdual.BayesDual`; IVON begins
    anew in each experience, with settings by its rule.

    Args:
        memory_size: Greatest number of exemplars kept, at least one for each class; 0: none.
        hidden: Sizes of the hidden layers of the network.
        network: Makes another network of its numbers of inputs and classes; None: a perceptron of these layers.
        epochs: Of each experience.
        batch_size: New examples of a step.
        lr_factor: Multiplies the learning rate of the rule.
        algorithm: Makes an algorithm of a memory size, in place of the default one's.
        random_state: Seed of all that is random, as everywhere in scikit-learn.

    Attributes:
        classes_: The classes, shape (C,).
        network_: The network.
        algorithm_: With the memory and the posterior.
        n_experiences_: How many have been learned.
    """

    classes_: np.ndarray

    def __init__(
        self,
        memory_size: int = 200,
        hidden: Sequence[int] = (100, 100),
        network: Callable[[int, int], nn.Module] | None = None,
        epochs: int = 30,
        batch_size: int = 32,
        lr_factor: float = 1.0,
        algorithm: Callable[[int], BayesDual] = BayesDual,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(memory_size, hidden, network, epochs, batch_size, lr_factor, random_state)
        self.algorithm = algorithm

    def fit(self, X: Any, y: Any) -> ContinualClassifier:
        """Forgets all, and learns an experience.

        Args:
            X: Inputs, shape (n, features).
            y: Labels of any kind, shape (n,).

        Raises:
            ValueError: An argument is out of its range, or there is one class only.
        """
        if hasattr(self, "classes_"):
            del self.classes_
        return self._learn(X, y, None)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> ContinualClassifier:
        """Learns a further experience.

        Args:
            X: Inputs, shape (n, features).
            y: Labels, shape (n,).
            classes: All classes that will ever come; needed in the first call.

        Raises:
            ValueError: As in :meth:`fit`; or a label is none of the classes.
        """
        if classes is None and not hasattr(self, "classes_"):
            raise ValueError("classes is not given: the first partial_fit needs all classes that will ever come.")
        if classes is not None and hasattr(self, "classes_") and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(f"classes are {np.unique(classes)}, but the first partial_fit said {self.classes_}.")
        return self._learn(X, y, classes)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, shape (n, C)."""
        return self._predicted(X)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, shape (n,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def _learn(self, X: Any, y: Any, classes: Any) -> ContinualClassifier:
        first = not hasattr(self, "classes_")
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        check_classification_targets(y)
        known = (unique_labels(y) if classes is None else np.unique(classes)) if first else self.classes_
        if strays := np.setdiff1d(y, known).tolist():
            raise ValueError(f"y has the label {strays[0]!r}, which is none of the classes {known}.")
        if len(known) < 2:
            raise ValueError(f"there is one class, {known[0]!r}: give at least two to tell apart.")
        with self._seeded():
            if first:
                algorithm = self.algorithm(self.memory_size)
                algorithm.check_budget(_data(torch.zeros(1, X.shape[1]), torch.zeros(1).long()), len(known))
                self._begin(X, algorithm, len(known))
                self.classes_ = known
            self._learn_experience(_data(self._inputs(X).float(), torch.from_numpy(np.searchsorted(known, y))))
        return self


class ContinualRegressor(RegressorMixin, _Continual):
    """The same for targets that are numbers: ``partial_fit`` learns an experience, ``fit`` only one.

    Targets may be of any scale: they are taken in units of those of the first experience.

    Args:
        memory_size: Greatest number of exemplars kept; 0: none.
        hidden: Sizes of the hidden layers of the network.
        network: Makes another network of its numbers of inputs and of outputs, 1; None: a perceptron of these layers.
        epochs: Of each experience.
        batch_size: New examples of a step.
        lr_factor: Multiplies the learning rate of the rule.
        likelihood: ``gaussian`` or ``poisson``; or what makes a likelihood of one output.
        random_state: Seed of all that is random, as everywhere in scikit-learn.

    Attributes:
        network_: The network.
        algorithm_: With the memory, the posterior and the likelihood, which has the noise.
        n_experiences_: How many have been learned.
    """

    def __init__(
        self,
        memory_size: int = 200,
        hidden: Sequence[int] = (100, 100),
        network: Callable[[int, int], nn.Module] | None = None,
        epochs: int = 30,
        batch_size: int = 32,
        lr_factor: float = 1.0,
        likelihood: Literal["gaussian", "poisson"] | Callable[[], Likelihood] = "gaussian",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(memory_size, hidden, network, epochs, batch_size, lr_factor, random_state)
        self.likelihood = likelihood

    def fit(self, X: Any, y: Any) -> ContinualRegressor:
        """Forgets all, and learns an experience.

        Args:
            X: Inputs, shape (n, features).
            y: Targets, shape (n,).

        Raises:
            ValueError: An argument is out of its range, or a target is not what the likelihood is of.
        """
        if hasattr(self, "network_"):
            del self.network_
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any) -> ContinualRegressor:
        """Learns a further experience; arguments and errors as in :meth:`fit`."""
        first = not hasattr(self, "network_")
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, reset=first)
        with self._seeded():
            algorithm = self._algorithm() if first else self.algorithm_
            targets = algorithm.likelihood.targets(y, "y")
            if first:
                self._begin(X, algorithm, algorithm.likelihood.outputs(0))
            self._learn_experience(_data(self._inputs(X).float(), targets))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The mean of the target of each row, shape (n,)."""
        return self._predicted(X)[:, 0]

    def _algorithm(self) -> BayesDual:
        given = self.likelihood
        likelihood = likelihood_by(given) if isinstance(given, str) else given()
        if likelihood.has_classes:
            raise ValueError(f"likelihood is {likelihood.name}, which is of classes: take ContinualClassifier.")
        return BayesDual(self.memory_size, likelihood=likelihood)


def _data(x: Tensor, y: Tensor) -> TensorData:
    return TensorData(x, y, torch.zeros(len(y), dtype=torch.int64), torch.arange(len(y)))
