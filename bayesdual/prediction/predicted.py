"""What a prediction says of inputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Predicted(NamedTuple):
    """A prediction of B inputs.

    Attributes:
        probabilities: Of the classes, shape (B, C).
        aleatoric: Mean entropy of what the uncertain weights say, nats, shape (B,); what the entropy of
            ``probabilities`` has beyond it is the weights' (``bayesdual/measures/entropy.py``). None: the weights are
            taken as certain.
    """

    probabilities: Tensor
    aleatoric: Tensor | None = None
