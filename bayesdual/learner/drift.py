"""Whether the inputs of an experience are others than those of the one before, seen before it is learned.

Examples to learn are compared with examples that the experience before is evaluated on, by what goes into the network's
last layer (``bayesdual/measures/two_samples.py``), beside their predictive entropy and their loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from bayesdual.likelihoods import Likelihood
from bayesdual.measures import mmd_test
from bayesdual.models import evaluating
from bayesdual.posterior import watching_last_linear
from bayesdual.stream import ExperienceData, Predict

EXAMPLES = 300  # of each
SURE = 0.01  # the p-value below which it is called a drift


@torch.no_grad()
def drift(
    network: nn.Module,
    predict: Predict,
    likelihood: Likelihood,
    before: ExperienceData,
    now: ExperienceData,
    experience: int,
    device: torch.device | str,
) -> dict[str, Any]:
    """What tells an experience from the one before.

    Args:
        network: The network, as it is before it learns the experience.
        predict: Its logits.
        likelihood: Of the targets.
        before: Examples of the experience before that were not learned from.
        now: Those of the experience.
        experience: Its index, which seeds all that is drawn.
        device: Where the network is.

    Returns:
        ``experience`` (from 1), ``mmd2`` and ``p`` of the features, ``drifts`` (p is below .01), and ``loss`` and, of
        classes, ``entropy`` (nats), of now and, as ``..._before``, of before.
    """
    generator = Generator().manual_seed(experience)
    with evaluating(network):
        old, new = (_seen(network, predict, likelihood, data, generator, device) for data in (before, now))
    test = mmd_test(old.pop("features"), new.pop("features"), generator)
    means = {f"{key}_before": float(value.mean()) for key, value in old.items()}
    return {
        "experience": experience + 1,
        "mmd2": test.mmd2,
        "p": test.p,
        "drifts": test.p < SURE,
        **{key: float(value.mean()) for key, value in new.items()},
        **means,
    }


def _seen(
    network: nn.Module,
    predict: Predict,
    likelihood: Likelihood,
    data: ExperienceData,
    generator: Generator,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Features (n, D), losses (n,) and, of classes, entropies (n,) of some examples."""
    rows = torch.randperm(len(data.y), generator=generator)[:EXAMPLES]
    with watching_last_linear(network) as last:
        f = predict(data.inputs(rows).to(device), data.tasks[rows].to(device)).float()
    features = f if last.features is None or len(last.features) != len(f) else last.features.flatten(1).float()
    seen = {"features": features, "loss": likelihood.loss(f, data.y[rows].to(device))}
    if likelihood.has_classes:
        seen["entropy"] = torch.special.entr(likelihood.predicted(f)).sum(1)
    return seen


def sentence_of_drift(found: dict[str, Any]) -> str:
    """That an experience drifts, for people."""
    n = found["experience"]
    return (
        f"the inputs of experience {n} are others than those of experience {n - 1} (two-sample test on features, "
        f"p = {found['p']:.3g}); loss before learning {found['loss']:.3g}, there {found['loss_before']:.3g}"
    )
