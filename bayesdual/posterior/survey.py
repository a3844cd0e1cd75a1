"""One pass through an experience: what the network and its posterior say of each example."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.posterior.gaussian import Posterior
from bayesdual.posterior.last_layer import watching_last_linear
from bayesdual.stream import ExperienceData, Predict

SCORING_BATCH = 200  # more do not fit a processor's cache


@dataclass(frozen=True)
class Scored:
    """What the model says of examples of an experience once it is learned, aligned with them.

    Attributes:
        logits: Shape (N, C).
        features: Inputs of the last layer, shape (N, D).
        scores: Leverage of each example under the posterior's last layer, shape (N,); the sum of its lambda where
            there is no posterior of a last layer.
    """

    logits: Tensor
    features: Tensor
    scores: Tensor


def score_examples(
    module: nn.Module,
    predict: Predict,
    data: ExperienceData,
    rows: Tensor,
    posterior: Posterior | None,
    device: torch.device | str,
    likelihood: Likelihood = CATEGORICAL,
) -> Scored:
    """Goes once through some examples of an experience and notes what the model and its posterior say of each.

    Where there is no linear layer that sees all examples of a batch at once, the logits serve as features.
    """
    logits, features, scores = [], [], []
    weights = {} if posterior is None else posterior.variance
    with watching_last_linear(module) as last:
        for part in rows.split(SCORING_BATCH):
            f = predict(data.inputs(part).to(device), data.tasks[part].to(device)).float()
            curvature = likelihood.curvature(f)
            variance = last.variance(weights)
            logits.append(f)
            seen = last.features
            features.append(f if seen is None or len(seen) != len(f) else seen.flatten(1).float())
            if variance is None or variance.shape != f.shape:
                scores.append(curvature.sum(1))
            else:
                scores.append((curvature * variance).sum(1))
    return Scored(torch.cat(logits), torch.cat(features), torch.cat(scores))
