"""What a conformal method for a real target has to know."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from bayesdual.conformal.sets import Sets


class Method(Protocol):
    """From a network's outputs to scores and sets; targets are in units of their standard deviation."""

    @property
    def outputs(self) -> int:
        """How many numbers the network gives."""
        ...

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        """The mean loss of what the network gives (B, outputs), with targets (B,)."""
        ...

    def activate(self, raw: Tensor) -> Tensor:
        """What it says, (B, outputs); where several networks speak, of the mean of what they give."""
        ...

    def score(self, said: Tensor, y: Tensor) -> Tensor:
        """Nonconformity scores (B,) of targets (B,)."""
        ...

    def sets(self, said: Tensor, q: float) -> Sets:
        """{y : score <= q} of each row."""
        ...

    def mean(self, said: Tensor) -> Tensor:
        """A point prediction (B,)."""
        ...
