"""What a prediction says of inputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Predicted(NamedTuple):
    """A prediction of B inputs.

    Attributes:
        probabilities: Of the classes, shape (B, C).
        epistemic: What of their entropy the uncertain weights are the reason of, the mutual information of label and
            weights (``bayesdual/measures/entropy.py``), nats, shape (B,). None: the weights are taken as certain.
    """

    probabilities: Tensor
    epistemic: Tensor | None = None
