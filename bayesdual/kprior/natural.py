"""The posterior of the past as the prior inside the step, for streams without a memory.

CoVON makes the posterior of the past the prior of IVON's step, by a diagonal; here its precision P, per past example,
is Kronecker-factored (``kronecker.py``). With N' past and N new examples, the loss of a step and its curvature are

    loss        s CE(new) + (1 - s) 1/2 (theta - theta_old)^T P (theta - theta_old),     s = N / (N + N')
    curvature   s h + (1 - s) P

where h stands for that of the new examples, alike in all directions. A step along the inverse of the curvature, in
units of h, is one along the gradient multiplied by

    h (s h + (1 - s) P)^-1                 in the eigenvectors of P:     h / (s h + (1 - s) g_i a_j)

before the optimizer sees it, so that momentum, noise and learning rate are the optimizer's. A direction that the past
does not hold moves as it does without a past; one that it holds moves by less, the more so the more examples hold it.
The penalty alone, without this, pulls weights back only when they have left, and its steps are unstable where P is
large: ``KroneckerPrior`` has a cap for that, and a strength, which here is 1, as Bayes' rule has it.

Sources: Kao et al., "Natural continual learning: success is a journey, not (just) a destination", NeurIPS 2021
(Laplace's posterior as prior and preconditioner of gradient descent); Paul et al., arXiv 2606.24007, 2026 (CoVON, the
prior inside IVON's step).
"""

from __future__ import annotations

import math
import sys
from typing import cast

import torch
from torch import Tensor, nn

from bayesdual.kprior.kronecker import KroneckerPrior
from bayesdual.tensors import corner


class NaturalPrior(KroneckerPrior):
    """Holds the linear layers of a network where past examples need them, and slows steps down there.

    What :class:`KroneckerPrior` says of layers of other kinds is true here too: they are not held.

    Args:
        temperature: T; above 1 it also counts examples that the network is sure of.
        curvature: h, that of a new example along any direction.
        input_rank: Number of eigenvectors of A; along others the past holds nothing.
        examples: Number of an experience's examples that the factors are estimated from.

    Raises:
        ValueError: An argument is not positive.
    """

    def __init__(
        self, temperature: float = 5.0, curvature: float = 0.1, input_rank: int = 128, examples: int = 1000
    ) -> None:
        super().__init__(1.0, temperature, math.inf, input_rank, sys.maxsize, examples)
        if curvature <= 0:
            raise ValueError(f"NaturalPrior's curvature is {curvature}: give a positive number.")
        self.curvature = curvature

    @torch.no_grad()
    def precondition(self, module: nn.Module, share: float) -> None:
        """Multiplies the gradients of all parameters as above; does nothing before an experience has been learned.

        Args:
            module: The network, with gradients.
            share: s.
        """
        if not self._anchor:
            return
        for p in module.parameters():
            if p.grad is not None:
                p.grad.div_(share)
        for name, anchor in self._anchor.items():
            layer = cast(nn.Linear, module.get_submodule(name))
            kept = share * self.curvature / (share * self.curvature + (1 - share) * anchor["curvature"])
            _scale_(layer, anchor["outputs"], anchor["inputs"], kept)


def _scale_(layer: nn.Linear, outputs: Tensor, inputs: Tensor, kept: Tensor) -> None:
    """Adds U_G [(kept - 1) * (U_G^T g U_A)] U_A^T to the gradient g of a layer, the bias as its last column."""
    if layer.weight.grad is None:
        return
    weight = corner(layer.weight.grad, (len(outputs), layer.weight.shape[1]))
    n = weight.shape[1]
    g = outputs.T @ weight.to(inputs) @ inputs[:n]
    bias = None if layer.bias is None or layer.bias.grad is None else corner(layer.bias.grad, outputs.shape[:1])
    if bias is not None:
        g = g + torch.outer(outputs.T @ bias.to(inputs), inputs[n])
    change = outputs @ ((kept - 1) * g) @ inputs.T
    weight.add_(change[:, :n])
    if bias is not None:
        bias.add_(change[:, n])
