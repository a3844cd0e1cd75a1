"""What a run has shown so far: accuracies, calibration and where the time went. It travels in the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bayesdual import measures


class History:
    """Evaluations after each experience, and clocks that go on where a stopped run left them.

    Attributes:
        accuracy: The accuracy matrix so far: row i after experience i, column j the experience evaluated; NaN where it
            was not: experiences not known yet then, and those whose test data cannot be had any more.
        untrained: Accuracy of the untrained network on each experience; empty if it was not evaluated.
        nll: Negative log-likelihood on the whole stream in the latest evaluation, nats per example.
        ece: Expected calibration error there, between 0 and 1.
        seconds: Wall time by activity: ``total``, ``evaluation`` and ``memory``.
    """

    def __init__(self) -> None:
        self.accuracy: list[list[float]] = []
        self.untrained: list[float] = []
        self.nll = float("nan")
        self.ece = float("nan")
        self.seconds = {"total": 0.0, "evaluation": 0.0, "memory": 0.0}
        self._started: dict[str, float] = {}

    def record(self, evaluation: measures.Evaluation) -> None:
        """Adds the evaluation after an experience."""
        width = len(evaluation["accuracy"])
        self.accuracy = [[*row, *[float("nan")] * (width - len(row))] for row in self.accuracy]
        self.accuracy.append(evaluation["accuracy"])
        self.nll, self.ece = evaluation["nll"], evaluation["ece"]

    def start(self, activity: str) -> None:
        """Starts a clock."""
        self._started[activity] = time.perf_counter()

    def stop(self, activity: str) -> None:
        """Stops a clock and adds what it shows; does nothing if it is not running."""
        if activity in self._started:
            self.seconds[activity] += time.perf_counter() - self._started.pop(activity)

    @contextmanager
    def timing(self, activity: str) -> Iterator[None]:
        self.start(activity)
        try:
            yield
        finally:
            self.stop(activity)

    def results(self) -> dict[str, Any]:
        """The measures of ``bayesdual.measures`` on all experiences evaluated, and the seconds spent.

        ``forward_transfer`` is None if the untrained network was not evaluated.
        """
        training = self.seconds["total"] - self.seconds["evaluation"] - self.seconds["memory"]
        complete = bool(self.untrained)
        return {
            "average_accuracy": measures.average_accuracy(self.accuracy),
            "forgetting": measures.forgetting(self.accuracy),
            "backward_transfer": measures.backward_transfer(self.accuracy),
            "forward_transfer": measures.forward_transfer(self.accuracy, self.untrained) if complete else None,
            "accuracy_matrix": self.accuracy,
            "accuracy_untrained": self.untrained,
            "nll": self.nll,
            "ece": self.ece,
            **{f"seconds_{name}": value for name, value in self.seconds.items()},
            "seconds_training": training,
        }

    def state_dict(self) -> dict[str, Any]:
        running = {name: time.perf_counter() - start for name, start in self._started.items()}
        return {
            "accuracy": self.accuracy,
            "untrained": self.untrained,
            "nll": self.nll,
            "ece": self.ece,
            "seconds": {name: value + running.get(name, 0.0) for name, value in self.seconds.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
