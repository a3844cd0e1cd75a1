"""What a run has shown so far: accuracies, how sure it was, and where the time went. It travels in the checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bayesdual import measures

GROUPS = ("old", "new", "unseen", "ood")  # experiences, as they stand to the one learned last, and other data
WHERE_KNOWN = ("accuracy_of_classes", "confusion", "reliability", "on_old")
OVER_STREAM = ("nll", "ece", "entropy", "aleatoric", "epistemic")


class History:
    """Evaluations after each experience, and clocks that go on where a stopped run left them.

    Args:
        score: What is measured of each experience: accuracy, or what the likelihood of numbers has in its place.

    Attributes:
        accuracy: The matrix of the score so far: row i after experience i, column j the experience evaluated; NaN where
            it was not: experiences not known yet then, and those whose test data cannot be had any more.
        untrained: Score of the untrained network on each experience; empty if it was not evaluated.
        nll: Negative log-likelihood on the whole stream in the latest evaluation, nats per example.
        ece: Expected calibration error there, between 0 and 1; NaN where there are no classes.
        measures: All measures there, and ``told_apart``: how well unseen experiences and data of another kind are told
            from those learned.
        accuracy_of_classes: A row after each experience, a column a class; NaN where one has no examples.
        confusion: How many examples of each class (rows) were taken for which (columns) in the latest evaluation.
        reliability: Answers, mean confidence and accuracy of each bin of confidence there.
        on_old: Mean score of the experiences learned before, every so many steps while the next is learned, if that
            is measured (see ``bayesdual.inspection.StreamBoard``): ``step``, ``experience`` (from 1) and ``old``.
        drift: What told each experience but the first from the one before, before it was learned: see
            :func:`bayesdual.prediction.drift_between`.
        over_stream: The measures after each experience, of ``old``, ``new`` and ``unseen`` ones, and ``told_apart``.
        seconds: Wall time by activity: ``total``, ``evaluation`` and ``memory``.
    """

    def __init__(self, score: measures.Score = measures.ACCURACY) -> None:
        self.score = score
        self.accuracy: list[list[float]] = []
        self.untrained: list[float] = []
        self.nll = float("nan")
        self.ece = float("nan")
        self.measures: dict[str, Any] = {}
        self.over_stream: list[dict[str, Any]] = []
        self.accuracy_of_classes: list[list[float]] = []
        self.confusion: list[list[int]] = []
        self.reliability: list[list[float]] = []
        self.on_old: list[dict[str, Any]] = []
        self.drift: list[dict[str, Any]] = []
        self.seconds = {"total": 0.0, "evaluation": 0.0, "memory": 0.0}
        self._started: dict[str, float] = {}

    def record(self, evaluation: measures.Evaluation | measures.NumberEvaluation) -> None:
        """Adds the evaluation after an experience."""
        scores = measures.scores_of(evaluation)
        width = len(scores)
        self.accuracy = [[*row, *[float("nan")] * (width - len(row))] for row in self.accuracy]
        self.accuracy.append(scores)
        self.nll, self.ece = evaluation["nll"], evaluation["ece"] if "ece" in evaluation else float("nan")
        apart = {"told_apart": evaluation["told_apart"]}
        self.measures = {**evaluation["measures"], **apart}
        if evaluation["groups"]:
            self.over_stream.append({"after": len(self.accuracy), **evaluation["groups"], **apart})
        if "confusion" in evaluation:
            self.confusion = evaluation["confusion"]
            self.reliability = [list(part) for part in evaluation["reliability"]]
            self.accuracy_of_classes.append(measures.accuracy_of_classes(self.confusion))

    def scalars(self) -> dict[str, float]:
        """What a logger is given of the latest evaluation."""
        matrix, key = self.accuracy, self.score.key
        groups = self.over_stream[-1] if self.over_stream else {}
        known = {j: a for j, a in enumerate(matrix[-1]) if not math.isnan(a)}
        return {
            **{f"{key}/experience_{j + 1}": a for j, a in known.items() if j < len(matrix)},
            **{f"{key}_before_learning/experience_{j + 1}": a for j, a in known.items() if j >= len(matrix)},
            f"average_{key}": measures.average_accuracy(matrix),
            f"average_{key}_seen": measures.average_seen_accuracy(matrix),
            "forgetting": measures.forgetting(self.score.gains(matrix)),
            "nll": self.nll,
            **self._ece(),
            **{f"{k}/{g}": groups[g][k] for g in GROUPS if g in groups for k in OVER_STREAM if k in groups[g]},
        }

    def _ece(self) -> dict[str, float]:
        return {} if "ece" not in self.measures and self.measures else {"ece": self.ece}

    def _where_known(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in WHERE_KNOWN if getattr(self, name)}

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

        ``forward_transfer`` is None if the untrained network was not evaluated, or on one experience of several only.

        Raises:
            ValueError: No experience has been evaluated yet.
        """
        if not self.accuracy:
            raise ValueError("no experience has been learned to its end and evaluated: there are no results yet.")
        training = self.seconds["total"] - self.seconds["evaluation"] - self.seconds["memory"]
        key, gains = self.score.key, self.score.gains(self.accuracy)
        [untrained] = self.score.gains([self.untrained])
        known = len(untrained) == 1 or not all(map(math.isnan, untrained[1:]))
        return {
            "score": key,
            f"average_{key}": measures.average_accuracy(self.accuracy),
            "forgetting": measures.forgetting(gains),
            "backward_transfer": measures.backward_transfer(gains),
            "forward_transfer": measures.forward_transfer(gains, untrained) if untrained and known else None,
            f"{key}_matrix": self.accuracy,
            f"{key}_untrained": self.untrained,
            "nll": self.nll,
            **self._ece(),
            **self.measures,
            "over_stream": self.over_stream,
            **self._where_known(),
            "drift": self.drift,
            **{f"seconds_{name}": value for name, value in self.seconds.items()},
            "seconds_training": training,
        }

    def state_dict(self) -> dict[str, Any]:
        running = {name: time.perf_counter() - start for name, start in self._started.items()}
        return {
            "score": list(self.score),
            "accuracy": self.accuracy,
            "untrained": self.untrained,
            "nll": self.nll,
            "ece": self.ece,
            "measures": self.measures,
            "over_stream": self.over_stream,
            **self._where_known(),
            "drift": self.drift,
            "seconds": {name: value + running.get(name, 0.0) for name, value in self.seconds.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, measures.Score(*value) if name == "score" else value)
