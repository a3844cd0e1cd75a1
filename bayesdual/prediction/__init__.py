"""Class probabilities by a posterior, by its mean, samples or the variance of the logits; and scalings of logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor, nn

from bayesdual.lazy import attach
from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.posterior import Posterior
from bayesdual.prediction.drift import EXAMPLES, Seen, drift_between, seen, sentence_of_drift, some_of
from bayesdual.prediction.last_layer import check_last_layer
from bayesdual.prediction.linearised import Linearised, probit
from bayesdual.prediction.logits import ask, class_logits, logits_of, takes_task_labels
from bayesdual.prediction.mean import ByMean
from bayesdual.prediction.predicted import Predicted
from bayesdual.prediction.samples import BySamples
from bayesdual.prediction.temperature import fit_temperature
from bayesdual.prediction.vector_scaling import fit_vector_scaling
from bayesdual.prediction.weights import ByWeights
from bayesdual.stream import Predict

PredictionName = Literal["mean", "samples", "linearised", "weight_samples"]


class Prediction(Protocol):
    """What is said of inputs."""

    def __call__(
        self, module: nn.Module, predict: Predict, posterior: Posterior | None, x: Tensor, t: Tensor
    ) -> Predicted:
        """Predicts.

        Args:
            module: The network, in eval mode.
            predict: Its logits.
            posterior: Of its weights, if there is one.
            x: Inputs, shape (B, ...).
            t: Task labels, shape (B,).

        Raises:
            ValueError: The posterior is not what this needs.
        """
        ...


def prediction_by(name: PredictionName, samples: int = 32, likelihood: Likelihood = CATEGORICAL) -> Prediction:
    """The prediction of a name.

    Args:
        name: ``mean``; ``samples`` or ``linearised``, of the last layer; or ``weight_samples``, of all weights.
        samples: How many, for ``samples`` and ``weight_samples``.
        likelihood: Of the targets; of all but classes by softmax there is ``mean`` only.

    Raises:
        ValueError: There is no such prediction, or not of this likelihood, or ``samples`` is less than 1.
    """
    if name != "mean" and not likelihood.is_softmax:
        raise ValueError(
            f"prediction is {name}, which averages class probabilities: with the likelihood {likelihood.name} give "
            "mean."
        )
    known: dict[str, Prediction] = {
        "mean": ByMean(likelihood),
        "samples": BySamples(samples),
        "linearised": Linearised(),
        "weight_samples": ByWeights(samples),
    }
    if name not in known:
        raise ValueError(f"prediction is {name!r}: give one of {', '.join(known)}.")
    return known[name]


__all__ = [
    "EXAMPLES",
    "ByMean",
    "BySamples",
    "ByWeights",
    "Linearised",
    "Predicted",
    "Prediction",
    "PredictionName",
    "Seen",
    "ask",
    "check_last_layer",
    "class_logits",
    "drift_between",
    "fit_isotonic",
    "fit_temperature",
    "fit_vector_scaling",
    "logits_of",
    "prediction_by",
    "probit",
    "seen",
    "sentence_of_drift",
    "some_of",
    "takes_task_labels",
]

if TYPE_CHECKING:
    from bayesdual.prediction.isotonic import fit_isotonic
else:
    __getattr__, __dir__ = attach(__name__, {"fit_isotonic": "isotonic"}, {"isotonic": "sklearn"})
