"""The K-prior of a linear network: vectors, and the curvature of what is left between them, in closed form.

Logits are f(x) = V x + b. A memory vector u_k of class y_k stands for w_k past examples x = u_k + e, with E e = 0 and
E e e^T = R (``bayesdual/memory/low_rank_spread.py``), so that the logits of these are f(u_k) + V e, with covariance
S = V R V^T. The loss of the past, and its function-space form with p the softmax and p_old that of the network before,

    sum_k w_k E_e CE(y_k, f(u_k + e)),        sum_k w_k E_e CE(p_old(u_k + e), f(u_k + e))

have means over e that no vector alone gives. Of the first the mean exponential of a normal e is known, and Jensen's
inequality gives

    E_e CE(y, f(u + e)) <= -log softmax(f'(u))_y,     f'_j = f_j + 1/2 (S_jj + S_yy - 2 S_jy)               labels

which where the network is sure of y is CE(y, f(u)) + 1/2 tr(S L) to second order in e, L = diag(p) - p p^T, and above
it elsewhere. It spreads each vector over its cell, so that new classes do not move in. Of the second only the change
D = V - V_old matters, and to second order in it

    E_e CE(p_old, p) = const + CE(p_old(u), p(u)) + 1/2 tr(D R D^T L)

    residual curvature       1/2 tr(D R D^T G),     G = sum_k w_k L_T(f_old(u_k)) / sum_k w_k,
                             L_T = diag(q) - q q^T,  q = softmax(f_old / T)

Vectors hold what the network says at the centres, wherever its weights go; the residual holds it in all other
directions that past examples have, to second order, so that both together match the Hessian of all past data. T > 1
matters as in ``kronecker.py``: at T = 1 the curvature along the logits of classes that are new is 0. The quadratic
alone, as of a posterior of the weights, is not enough: the columns of new classes move far.

Sources: Khan & Swaroop, NeurIPS 2021 (K-priors; with all data in memory the function-space term of such a network is
exact); Jung et al., NeurIPS 2025 (vectors that match the Hessian); Wang et al., NeurIPS 2019 (the bound of the mean
cross-entropy, there for augmenting data).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.memory import Exemplars, LowRankSpread
from bayesdual.models import linear_head
from bayesdual.tensors import corner

TEMPERATURE = 3.0  # T


class Residual:
    """What memory vectors of a linear network leave out of its loss.

    Args:
        spread: R, times the number of examples.
        examples: How many past examples there are.
        origin: V_old, shape (C, D).
        curvature: G, shape (C, C).
    """

    def __init__(self, spread: LowRankSpread, examples: float, origin: Tensor, curvature: Tensor) -> None:
        self._spread = spread
        self._examples = examples
        self._origin = origin
        self._curvature = curvature

    @classmethod
    def of(cls, module: nn.Module, vectors: Exemplars, spread: LowRankSpread, examples: float) -> Residual | None:
        """That of a memory, at the weights as they are; None where the network is not linear.

        Args:
            module: The network.
            vectors: The memory.
            spread: Of the examples around them.
            examples: How many examples it stands for.
        """
        head = linear_head(module)
        if head is None or not spread:
            return None
        with torch.no_grad():
            q = (head(vectors.x.flatten(1).to(head.weight)) / TEMPERATURE).softmax(1)
        share = (vectors.weights / vectors.weights.sum()).to(q)
        curvature = torch.diag(share @ q) - (q * share[:, None]).T @ q
        return cls(spread, examples, head.weight.detach().clone(), curvature)

    def loss(self, module: nn.Module) -> Tensor:
        """The residual curvature above, per past example."""
        head = _head(module)
        moved = corner(head.weight, self._origin.shape) - self._origin.to(head.weight)
        return 0.5 * (self._spread.through(moved, self._examples) * self._curvature.to(moved)).sum()

    def label_loss(self, module: nn.Module, logits: Tensor, y: Tensor) -> Tensor:
        """Mean of the bound of the expected cross-entropy with labels.

        Args:
            module: The network.
            logits: Its logits of vectors, shape (B, C).
            y: Their labels, shape (B,).
        """
        s = self._spread.through(_head(module).weight, self._examples)
        variances = s.diagonal()
        return F.cross_entropy(logits + 0.5 * (variances + variances[y, None] - 2 * s[y]), y)

    def to(self, device: torch.device | str) -> None:
        """Moves what it holds."""
        self._origin, self._curvature = self._origin.to(device), self._curvature.to(device)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and a number; the spread is the memory's."""
        return {"examples": self._examples, "origin": self._origin, "curvature": self._curvature}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], spread: LowRankSpread) -> Residual:
        """What :meth:`state_dict` gave, with the spread of the memory."""
        return cls(spread, state["examples"], state["origin"], state["curvature"])


def _head(module: nn.Module) -> nn.Linear:
    head = linear_head(module)
    if head is None:
        raise ValueError("the network is not linear in its inputs any more, as it was when the memory was made.")
    return head
