"""What a target y is, given what a network says of it, f: the loss, and all that K-priors and posteriors need of it.

In an exponential family with its natural parameter f, log-partition A and dispersion phi,

    loss       -log p(y | f) = (A(f) - y^T f) / phi + const(y)
    mean       mu(f) = A'(f), of which link is the inverse
    residual   e = (mu(f) - y) / phi                                   the loss's derivative by f
    lambda     diag Lambda,     Lambda = A''(f) / phi                  the loss's second derivative
    soft loss  (A(f / T) - mu(f_old / T)^T f / T) / phi                a soft target in place of y

so that whatever holds of one likelihood holds of each. What is learned by may be in a unit of its own, in which steps
are of the size that optimizers expect: the old and the new count alike in any. Where the loss of the past is that of a
generalised linear model at its optimum, sum_i x_i e_i = 0, and the soft loss of all its examples at T = 1 has the
gradient that their loss has.

Lambda = sum_k r_k r_k^T is given by its factors r_k: what is drawn among them, estimates it.

Sources: McCullagh & Nelder, "Generalized linear models", 1989; Khan & Swaroop, "Knowledge-Adaptation Priors", NeurIPS
2021 (K-priors for these).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Generator, Tensor

from bayesdual.measures import Score

if TYPE_CHECKING:
    from bayesdual.measures import NumberMetric, StreamMetric


class Likelihood(Protocol):
    """What targets are, given outputs f of shape (B, C); ``bayesdual.likelihoods.OneOutput`` is most of one.

    Attributes:
        name: What it is called.
        score: What forgetting and transfer are measured in.
        has_classes: Whether targets are classes: those are numbered from 0, and a memory is shared out over them.
        is_softmax: Whether Lambda = diag(p) - p p^T, which predictions by the posterior of the last layer take it for.
        temperature: T of soft targets where none is given; None: it has no effect.
    """

    name: str
    score: Score
    has_classes: bool
    is_softmax: bool
    temperature: float | None

    def targets(self, given: Any, name: str) -> Tensor:
        """Targets of N examples as they are learned, shape (N,): int64 of classes, else float32.

        Args:
            given: A tensor, an array or a sequence.
            name: What they are of, for an error.

        Raises:
            ValueError: They are not what the likelihood is of.
        """
        ...

    def outputs(self, n_classes: int) -> int:
        """How many outputs a network needs at the least."""
        ...

    def look_at(self, y: Tensor) -> None:
        """Sees the first experience's targets, shape (N,), before anything is learned; later calls do nothing."""
        ...

    def learned(self, f: Tensor, y: Tensor, examples: int, experience: int) -> None:
        """Sees outputs (N', C) and targets (N',) that stand for the examples of an experience just learned.

        It may be shown an experience again: what it saw of it then counts.
        """
        ...

    def loss(self, f: Tensor, y: Tensor) -> Tensor:
        """The loss of each example, shape (B,), in the unit of what is learned, up to what does not depend on f."""
        ...

    def soft_loss(self, f: Tensor, old: Tensor, temperature: float) -> Tensor:
        """The soft loss of each example, shape (B,), in that unit, ``old`` being f_old, shape (B, C)."""
        ...

    def mean(self, f: Tensor) -> Tensor:
        """mu(f), shape (B, C)."""
        ...

    def link(self, mean: Tensor) -> Tensor:
        """f of a mean, shape (B, C)."""
        ...

    def predicted(self, f: Tensor) -> Tensor:
        """What is predicted: probabilities of the classes, shape (B, classes), or the mean in the target's units."""
        ...

    def curvature(self, f: Tensor) -> Tensor:
        """lambda, shape (B, C)."""
        ...

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """e, shape (B, C)."""
        ...

    def squared_lengths(self, f: Tensor) -> Tensor:
        """|r_k|^2, shape (B, K)."""
        ...

    def directions(self, f: Tensor, k: Tensor) -> Tensor:
        """Positive multiples of the factor r_k of each example, k of shape (B,); shape (B, C)."""
        ...

    def factor_entries(self, f: Tensor, k: Tensor, c: Tensor) -> Tensor:
        """Entry c_m of factor k_m of each example, up to its sign, shape (B, M); k and c have shape (M,)."""
        ...

    def drawn_factor(self, f: Tensor, generator: Generator) -> Tensor:
        """A random r, shape (B, C), with E[r r^T] = Lambda in the unit of what is learned."""
        ...

    def metric(self, n_experiences: int, learned: int | None = None) -> StreamMetric | NumberMetric:
        """What measures predictions; arguments as those of ``bayesdual.measures.StreamMetric``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What was seen of the data: plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
