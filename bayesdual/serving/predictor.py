"""A network with what its inputs are like and what its outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bayesdual.likelihoods import CATEGORICAL
from bayesdual.posterior import Posterior
from bayesdual.prediction import EXAMPLES, Prediction, Seen, class_logits, drift_between, seen, takes_task_labels
from bayesdual.stream import Inputs

BATCH = 1000  # as in the evaluations of a run


class Predictor:
    """Predicts classes of raw inputs, as the run did that learned the network.

    Args:
        network: The network; it is put into eval mode.
        inputs: What its inputs are like, and how they are normalised.
        prediction: By what it predicts: see ``bayesdual.prediction.prediction_by``.
        posterior: Of the weights, where ``prediction`` needs it.
        tasks: Which classes each task label can be, shape (tasks, C); None: there are no task labels.
        classes: The names of the classes, by label; empty: they are numbers.
        usual: What the network makes of inputs that it was evaluated on; None: that is not known.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Inputs,
        prediction: Prediction,
        posterior: Posterior | None = None,
        tasks: Tensor | None = None,
        classes: Sequence[str] = (),
        usual: Seen | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.inputs = inputs
        self.prediction = prediction
        self.posterior = posterior
        self.tasks = tasks
        self.classes = tuple(classes)
        self.usual = usual
        self._told = takes_task_labels(network)

    @property
    def needs_tasks(self) -> bool:
        """Whether the task label of each input has to be given."""
        return self._told or self.tasks is not None

    def logits(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Logits, shape (B, C), of raw inputs, shape (B, ...), and their task labels, shape (B,)."""
        return class_logits(self.network, x, t, self.inputs, self.tasks, self._told)

    @torch.no_grad()
    def predict_proba(self, x: Any, tasks: Any = None) -> Tensor:
        """Class probabilities, shape (B, C).

        Args:
            x: Inputs as the run learned from them (images raw, as uint8), shape (B, ...): a tensor, or an array, or,
                where they have parts, a dict or a tuple of these.
            tasks: Their task labels, shape (B,), or one for all; only in a stream with task labels.

        Raises:
            ValueError: Inputs are of another shape or type than was learned, or task labels are missing or unknown.
        """
        x = self.inputs.taken(x)
        t = self._task_labels(tasks, len(x))
        if not len(x):
            return torch.zeros(0, self.n_classes)
        parts = zip(x.split(BATCH), t.split(BATCH), strict=True)
        answers = [self.prediction(self.network, self.logits, self.posterior, *part) for part in parts]
        return torch.cat([answer.probabilities for answer in answers])

    def predict(self, x: Any, tasks: Any = None) -> list[str | int]:
        """The likeliest class of each input, by name where classes have names; arguments as :meth:`predict_proba`."""
        return [self.name_of(k) for k in self.predict_proba(x, tasks).argmax(1).tolist()]

    def drift(self, x: Any, tasks: Any = None, seed: int = 0) -> dict[str, Any] | None:
        """Whether inputs are others than those that the run was evaluated on, of all that it has learned.

        Args:
            x: As in :meth:`predict_proba`, at least two; of more than 300, so many are drawn.
            tasks: Likewise.
            seed: Of what is drawn.

        Returns:
            ``mmd2`` and ``p`` of a two-sample test on what goes into the last layer, ``drifts`` (p below .01), and the
            mean predictive ``entropy`` beside ``entropy_before``, nats; None where the run does not say what is usual
            (before 0.3).

        Raises:
            ValueError: As :meth:`predict_proba`, or there are less than two.
        """
        x = self.inputs.taken(x)
        t, generator = self._task_labels(tasks, len(x)), torch.Generator().manual_seed(seed)
        if self.usual is None:
            return None
        rows = torch.randperm(len(x), generator=generator)[:EXAMPLES]
        now = seen(self.network, self.logits, CATEGORICAL, x[rows], None, t[rows])
        return drift_between(self.usual, now, generator)

    def name_of(self, label: int) -> str | int:
        """The name of a class, or its number if it has none."""
        return self.classes[label] if label < len(self.classes) else label

    @property
    def n_classes(self) -> int:
        """How many classes there are logits for."""
        x = torch.zeros(1, *self.inputs.shape, dtype=getattr(torch, self.inputs.dtype))
        with torch.no_grad():
            return self.logits(x, torch.zeros(1, dtype=torch.int64)).shape[1]

    def _task_labels(self, tasks: Any, n: int) -> Tensor:
        if not self.needs_tasks:
            if tasks is not None:
                raise ValueError("tasks are given, but the stream that was learned has no task labels: leave them out.")
            return torch.zeros(n, dtype=torch.int64)
        if tasks is None:
            raise ValueError("the stream that was learned has task labels: give tasks, the task label of each input.")
        t = torch.as_tensor(tasks, dtype=torch.int64).expand(n) if torch.as_tensor(tasks).dim() == 0 else tasks
        t = torch.as_tensor(t, dtype=torch.int64)
        if len(t) != n:
            raise ValueError(f"there are {len(t)} task labels for {n} inputs: give one for each, or one for all.")
        if self.tasks is not None and n:
            known = self.tasks.any(1).nonzero().flatten().tolist()
            if strange := set(t.tolist()).difference(known):
                raise ValueError(f"task {min(strange)} has not been learned: give one of {known}.")
        return t
