"""What is read of a benchmark: its streams, their examples, and what tells them from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bayesdual.learner.past import fingerprint
from bayesdual.learner.unfamiliar import unfamiliar_data
from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.stream import DatasetData, TensorData, classes_of, experience_data, refuse_not_finite


class StreamReader:
    """Reads a benchmark's streams, each when it is first asked for: all evaluation data, and one experience to learn.

    Args:
        benchmark: An Avalanche benchmark, or what returns one.
        evaluate_on: The stream that it has to have beside ``train``.
        ood: Another one, whose test data are of another kind.
    """

    def __init__(self, benchmark: Callable[..., Any], evaluate_on: str, ood: Callable[..., Any] | None) -> None:
        self.likelihood: Likelihood = CATEGORICAL  # of the targets
        self._given = benchmark
        self._evaluate_on = evaluate_on
        self._ood_given = ood
        self._benchmark: Any = None
        self._described: dict[str, Any] | None = None
        self._fingerprint: str | None = None
        self._train: tuple[int, TensorData | DatasetData] | None = None
        self._evaluation: dict[str, list[TensorData | DatasetData]] = {}
        self._ood: list[TensorData | DatasetData] = []

    def of_targets(self, likelihood: Likelihood) -> None:
        """Takes targets for what a likelihood is of."""
        if likelihood is not self.likelihood:
            self.likelihood, self._described, self._train, self._evaluation = likelihood, None, None, {}

    @property
    def benchmark(self) -> Any:
        """The Avalanche benchmark, made when first asked for."""
        if self._benchmark is None:
            self._benchmark = _made(self._given, "data.benchmark")
            for name in ("train", self._evaluate_on):
                self.stream(name)
        return self._benchmark

    def stream(self, name: str) -> list[Any]:
        """Returns the experiences of a stream.

        Raises:
            ValueError: The benchmark has no such stream, or an empty one.
        """
        experiences = list(getattr(self.benchmark, f"{name}_stream", ()))
        if not experiences:
            hint = " (a share of the training data: --data.benchmark.init_args.validation 0.1)"
            raise ValueError(
                f"data.benchmark has no experiences in a stream {name!r}: "
                f"give a benchmark that has{hint if name == 'valid' else ''}."
            )
        return experiences

    def describe(self) -> dict[str, Any]:
        """Classes and number of examples of each experience, as plain values."""
        if self._described is None:
            train = self.stream("train")
            classes = [classes_of(e) if self.likelihood.has_classes else [] for e in train]
            self._described = {"classes": classes, "sizes": [*map(_size, train)]}
        return self._described

    def fingerprint(self) -> str:
        """Which training data these are."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(map(self._read, self.stream("train")))
        return self._fingerprint

    def _read(self, experience: Any) -> TensorData | DatasetData:
        return experience_data(experience, self.likelihood.targets)

    def train_data(self, current: int) -> TensorData | DatasetData:
        """The training data of an experience, counted from 0; those read last are kept.

        Raises:
            ValueError: There are no examples, or an input that is not finite, or a label that was not announced.
        """
        if self._train is None or self._train[0] != current:
            name = f"experience {current + 1} of data.benchmark"
            data = self._read(self.stream("train")[current])
            if len(data) == 0:
                raise ValueError(f"{name} has no training examples: leave it out.")
            announced = self.describe()["classes"][current]
            if self.likelihood.has_classes and (strays := set(data.y.unique().tolist()).difference(announced)):
                raise ValueError(
                    f"{name} has the label {min(strays)}, but its classes_in_this_experience are {announced}: give it "
                    "all that it has."
                )
            _refuse_not_finite(data, name)
            self._train = (current, data)
        return self._train[1]

    def evaluation_data(self, stream: str) -> list[TensorData | DatasetData]:
        """The data of all experiences of an evaluation stream, read once.

        Raises:
            ValueError: An input is not finite, or labels are no classes.
        """
        if stream not in self._evaluation:
            data = [self._read(e) for e in self.stream(stream)]
            for number, of_one in enumerate(data, start=1):
                _refuse_not_finite(of_one, f"experience {number} of the stream {stream!r} of data.benchmark")
            self._evaluation[stream] = data
        return self._evaluation[stream]

    def ood_data(self) -> list[TensorData | DatasetData]:
        """The data of another kind, read once; empty where none are given.

        Raises:
            ValueError: They are not like the stream's: other shapes, types or means, NaN, or task labels.
        """
        if self._ood_given is not None and not self.likelihood.has_classes:
            raise ValueError(
                "data.ood is told apart by the entropy of classes, and the targets are numbers: leave data.ood out."
            )
        if self._ood_given is not None and not self._ood:
            self._ood = unfamiliar_data(_made(self._ood_given, "data.ood"), self.evaluation_data("test"))
        return self._ood


def _made(given: Any, key: str) -> Any:
    """The benchmark that is given, or that what is given returns."""
    made = given if hasattr(given, "train_stream") or not callable(given) else given()
    if not hasattr(made, "train_stream"):
        raise ValueError(
            f"{key} gives {made!r:.80}, which is no Avalanche benchmark: name a callable that returns one, with "
            "streams train and test."
        )
    return made


def _refuse_not_finite(data: TensorData | DatasetData, name: str) -> None:
    """Looks at data that are held; those behind a loader are looked at as they are read."""
    if isinstance(data, TensorData):
        refuse_not_finite(data.x, torch.arange(len(data)), name)


def _size(experience: Any) -> int:
    return len(experience.dataset) if hasattr(experience, "dataset") else len(experience_data(experience))
