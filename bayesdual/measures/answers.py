"""All that is measured of a classifier's answers: how right they are, how sure, and how rightly so.

A few numbers are kept of each example, p being the predicted probabilities and p_s those by sample s of the weights:

    confidence max_k p_k    right 1[y = argmax_k p_k]    nll -ln p_y    distance sum_k (p_k - 1[y = k])^2
    entropy H(p)            epistemic H(mean_s p_s) - mean_s H(p_s), where the weights are uncertain

All measures follow from these, of all examples or of some; so one pass over the data gives all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayesdual.measures.calibration import (
    confidence_and_right,
    gap_by_count,
    gap_by_width,
    risk_of_confident,
    squared_distance,
)
from bayesdual.measures.out_of_distribution import ood_auroc, ood_fpr

Measured = dict[str, float]
"""Measures by name."""


class Answers(NamedTuple):
    """What is kept of B answers, each of shape (B,) and in float64; see the equations.

    ``epistemic`` is NaN where a prediction takes the weights as certain.
    """

    confidence: Tensor
    right: Tensor
    nll: Tensor
    distance: Tensor
    entropy: Tensor
    epistemic: Tensor

    def where(self, mask: Tensor) -> Answers:
        """Those of some examples, by booleans of shape (B,)."""
        return Answers(*(values[mask] for values in self))

    @property
    def splits(self) -> bool:
        """Whether the entropy is known in its two parts."""
        return not bool(self.epistemic.isnan().all())


def answers_of(p: Tensor, y: Tensor, epistemic: Tensor | None = None) -> Answers:
    """What is kept of predictions.

    Args:
        p: Class probabilities, shape (B, C).
        y: Labels, shape (B,).
        epistemic: What of their entropy the weights are the reason of, nats, shape (B,); None: these are certain.
    """
    nll = -p.gather(1, y[:, None]).squeeze(1).double().clamp_min(1e-38).log()
    entropy = torch.special.entr(p.double()).sum(1)
    weights = torch.full_like(entropy, torch.nan) if epistemic is None else epistemic.double()
    return Answers(*confidence_and_right(p, y), nll, squared_distance(p, y), entropy, weights)


def measured(a: Answers) -> Measured:
    """Accuracy, NLL (nats), ECE, adaptive ECE, Brier, AURC and mean entropy (nats) of one or more answers.

    Where the weights are uncertain, the entropy also in two parts, ``aleatoric`` and ``epistemic``.
    """
    result = {
        "accuracy": float(a.right.mean()),
        "nll": float(a.nll.mean()),
        "ece": gap_by_width(a.confidence, a.right),
        "adaptive_ece": gap_by_count(a.confidence, a.right),
        "brier": float(a.distance.mean()),
        "aurc": risk_of_confident(a.confidence, a.right),
        "entropy": float(a.entropy.mean()),
    }
    if a.splits:
        result |= {"aleatoric": float((a.entropy - a.epistemic).mean()), "epistemic": float(a.epistemic.mean())}
    return result


def told_apart(known: Answers, other: Answers) -> Measured:
    """How well data of another kind are told from data like those learned: AUROC and FPR95 by each score.

    The scores are ``max_probability`` (1 - the confidence), ``entropy`` and, where the weights are uncertain,
    ``epistemic``; see :func:`bayesdual.measures.ood_auroc`.
    """
    scores = {
        "max_probability": (1 - known.confidence, 1 - other.confidence),
        "entropy": (known.entropy, other.entropy),
    }
    if known.splits and other.splits:
        scores["epistemic"] = known.epistemic, other.epistemic
    return {f"auroc_{name}": ood_auroc(*both) for name, both in scores.items()} | {
        f"fpr95_{name}": ood_fpr(*both) for name, both in scores.items()
    }
