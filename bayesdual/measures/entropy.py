"""What a network is unsure of: the data's own noise, or its weights.

With p_s the probabilities by sample s of S of the weights, and H the entropy in nats:

    total      H(mean_s p_s)
    aleatoric  mean_s H(p_s)                what no more data would take away
    epistemic  total - aleatoric            the mutual information of label and weights

Source: Depeweg et al., ICML 2018.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Entropy(NamedTuple):
    """Entropies in nats, each of shape (B,)."""

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


def split_entropy(p: Tensor) -> Entropy:
    """Splits the entropy of predictions.

    Args:
        p: Class probabilities by each sample, shape (S, B, C).
    """
    total, aleatoric = _entropy(p.mean(0)), _entropy(p).mean(0)
    return Entropy(total, aleatoric, (total - aleatoric).clamp_min(0))


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)
