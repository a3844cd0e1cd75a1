"""Whether inputs are others than those of before, by what a network makes of both.

What goes into its last layer is compared by a two-sample test (``bayesdual/measures/two_samples.py``), beside
predictive entropy and, where targets are known, loss. A host compares an experience with the one before, before it is
learned; a served run compares inputs with those that it was evaluated on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Generator, Tensor, nn

from bayesdual.likelihoods import Likelihood
from bayesdual.measures import mmd_test
from bayesdual.models import evaluating
from bayesdual.posterior import watching_last_linear
from bayesdual.stream import Batch, ExperienceData, Predict

EXAMPLES = 300  # of each
SURE = 0.01  # the p-value below which it is called a drift


class Seen(NamedTuple):
    """What a network makes of some examples.

    Attributes:
        features: What goes into its last layer, shape (n, D); its outputs where there is no such layer.
        entropy: Of its predictions, nats, shape (n,); None where there are no classes.
        loss: Shape (n,); None where targets are not known.
    """

    features: Tensor
    entropy: Tensor | None = None
    loss: Tensor | None = None

    def state_dict(self) -> dict[str, Tensor | None]:
        """Tensors or None, on the CPU."""
        return {name: None if value is None else value.cpu() for name, value in self._asdict().items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor | None] | None) -> Seen | None:
        """What :meth:`state_dict` gave; None of None."""
        return None if state is None else cls(**cast(dict[str, Any], state))


def some_of(data: Sequence[ExperienceData], generator: Generator, n: int = EXAMPLES) -> Batch:
    """About ``n`` examples in all, as many of each of the experiences as it has."""
    parts = []
    for part in data:
        rows = torch.randperm(len(part.y), generator=generator)[: max(1, n // len(data))]
        parts.append((part.inputs(rows), part.y[rows], part.tasks[rows]))
    x, y, t = map(torch.cat, zip(*parts, strict=True))
    return x, y, t


@torch.no_grad()
def seen(network: nn.Module, predict: Predict, likelihood: Likelihood, x: Tensor, y: Tensor | None, t: Tensor) -> Seen:
    """What a network makes of examples.

    Args:
        network: The network.
        predict: Its logits.
        likelihood: Of the targets.
        x: Inputs, shape (n, ...), on the network's device, as are ``y`` and ``t``.
        y: Targets, shape (n,); None: they are not known.
        t: Task labels, shape (n,).
    """
    with evaluating(network), watching_last_linear(network) as last:
        f = predict(x, t).float()
    features = f if last.features is None or len(last.features) != len(f) else last.features.flatten(1).float()
    entropy = torch.special.entr(likelihood.predicted(f)).sum(1) if likelihood.has_classes else None
    return Seen(features, entropy, None if y is None else likelihood.loss(f, y))


def drift_between(before: Seen, now: Seen, generator: Generator) -> dict[str, Any]:
    """What tells examples from those of before.

    Args:
        before: What the network makes of these, which it has not learned from.
        now: Of those.
        generator: Source of randomness, on the CPU.

    Returns:
        ``mmd2`` and ``p`` of the features, ``drifts`` (p below .01), and, where both are known, the means of ``loss``
        and ``entropy`` (nats), of now and, as ``..._before``, of before.

    Raises:
        ValueError: There are less than two examples of before or of now.
    """
    test = mmd_test(before.features, now.features, generator)
    found: dict[str, Any] = {"mmd2": test.mmd2, "p": test.p, "drifts": test.p < SURE}
    for key, old, new in (("loss", before.loss, now.loss), ("entropy", before.entropy, now.entropy)):
        if old is not None and new is not None:
            found |= {key: float(new.mean()), f"{key}_before": float(old.mean())}
    return found


def sentence_of_drift(found: Mapping[str, Any]) -> str:
    """That an experience drifts, for people."""
    n = found["experience"]
    return (
        f"the inputs of experience {n} are others than those of experience {n - 1} (two-sample test on features, "
        f"p = {found['p']:.3g}); loss before learning {found['loss']:.3g}, there {found['loss_before']:.3g}"
    )
