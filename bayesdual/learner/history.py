"""What a run has shown so far: accuracies, how sure it was, and where the time went. It travels in the checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bayesdual import measures

GROUPS = ("old", "new", "unseen")  # experiences, as they stand to the one learned last
OVER_STREAM = ("nll", "ece", "entropy", "aleatoric", "epistemic")


class History:
    """Evaluations after each experience, and clocks that go on where a stopped run left them.

    Attributes:
        accuracy: The accuracy matrix so far: row i after experience i, column j the experience evaluated; NaN where it
            was not: experiences not known yet then, and those whose test data cannot be had any more.
        untrained: Accuracy of the untrained network on each experience; empty if it was not evaluated.
        nll: Negative log-likelihood on the whole stream in the latest evaluation, nats per example.
        ece: Expected calibration error there, between 0 and 1.
        measures: All measures there, and ``told_apart``: how well unseen experiences and data of another kind are told
            from those learned.
        over_stream: The measures after each experience, of ``old``, ``new`` and ``unseen`` ones, and ``told_apart``.
        seconds: Wall time by activity: ``total``, ``evaluation`` and ``memory``.
    """

    def __init__(self) -> None:
        self.accuracy: list[list[float]] = []
        self.untrained: list[float] = []
        self.nll = float("nan")
        self.ece = float("nan")
        self.measures: dict[str, Any] = {}
        self.over_stream: list[dict[str, Any]] = []
        self.seconds = {"total": 0.0, "evaluation": 0.0, "memory": 0.0}
        self._started: dict[str, float] = {}

    def record(self, evaluation: measures.Evaluation) -> None:
        """Adds the evaluation after an experience."""
        width = len(evaluation["accuracy"])
        self.accuracy = [[*row, *[float("nan")] * (width - len(row))] for row in self.accuracy]
        self.accuracy.append(evaluation["accuracy"])
        self.nll, self.ece = evaluation["nll"], evaluation["ece"]
        apart = {"told_apart": evaluation["told_apart"]}
        self.measures = {**evaluation["measures"], **apart}
        if evaluation["groups"]:
            self.over_stream.append({"after": len(self.accuracy), **evaluation["groups"], **apart})

    def scalars(self) -> dict[str, float]:
        """What a logger is given of the latest evaluation."""
        matrix = self.accuracy
        groups = self.over_stream[-1] if self.over_stream else {}
        accuracy = {j: a for j, a in enumerate(matrix[-1]) if not math.isnan(a)}
        return {
            **{f"accuracy/experience_{j + 1}": a for j, a in accuracy.items() if j < len(matrix)},
            **{f"accuracy_before_learning/experience_{j + 1}": a for j, a in accuracy.items() if j >= len(matrix)},
            "average_accuracy": measures.average_accuracy(matrix),
            "average_accuracy_seen": measures.average_seen_accuracy(matrix),
            "forgetting": measures.forgetting(matrix),
            "nll": self.nll,
            "ece": self.ece,
            **{f"{key}/{g}": groups[g][key] for g in GROUPS if g in groups for key in OVER_STREAM if key in groups[g]},
        }

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
            **self.measures,
            "over_stream": self.over_stream,
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
            "measures": self.measures,
            "over_stream": self.over_stream,
            "seconds": {name: value + running.get(name, 0.0) for name, value in self.seconds.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
