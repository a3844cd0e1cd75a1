"""Exemplars, with weights, whose K-prior has the gradient of the whole class.

When the last layer's weights move by Delta, example i (features phi_i with a 1 appended, logits f_i) changes the
gradient of the K-prior (Khan & Swaroop, NeurIPS 2021) by

    h_i(Delta) = (softmax(f_i + Delta phi_i) - softmax(f_i)) phi_i^T

and a memory with weights w is as good as all N examples of its class if sum_z w_z h_z(Delta) = sum_i h_i(Delta) for the
moves to come. With MOVES random moves, the inner products of these changes are a kernel between examples,

    K_ij = mean over Delta of <change of softmax_i, change of softmax_j> <phi_i, phi_j>

On it the greedy algorithm of orthogonal matching pursuit takes, one after the other, the example that the remaining
error points to most, and finds all weights anew, none near 0:

    minimise |1/N sum_i h_i - sum_z w_z h_z|^2 + s (1 - sum_z w_z)^2    over w_z >= FLOOR / n

Gradient matching with weights: Mirzasoleiman et al., "CRAIG", ICML 2020; Killamsetty et al., "GRAD-MATCH", ICML 2021.
There it is the training loss's gradient at one point, here the K-prior's at many.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdual.selection import Candidates

MOVES = 128
SIZE = 1.0  # root mean square of the moves' changes of the logits
SUM = 0.01  # s, in units of the mean square of h_i
FLOOR = 0.1  # least weight, as a share of the mean weight
PIVOTS = 10  # changes of the set of weights at their floor, at most


def gradient_matching(candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Greedily those that, weighted, give the gradient of the whole class; the most needed first."""
    rows, weights = matching_pursuit(gradient_kernel(candidates, generator), n)
    return rows, weights.float().cpu()


def gradient_kernel(candidates: Candidates, generator: torch.Generator) -> Tensor:
    """Inner products K of the changes of the K-prior's gradient under random moves of the last layer's weights.

    Args:
        candidates: N examples, with features (N, D) and logits (N, C).
        generator: Source of randomness, on the CPU.

    Returns:
        Shape (N, N).
    """
    logits = candidates.logits.float()
    features = F.pad(candidates.features.flatten(1).float(), (0, 1), value=1.0)
    moves = torch.randn(features.shape[1], MOVES * logits.shape[1], generator=generator).to(features)
    moved = (features @ moves).unflatten(1, (MOVES, -1))  # (N, MOVES, C)
    moved = moved * (SIZE / moved.square().mean((0, 2)).sqrt().clamp_min(1e-12))[:, None]
    change = ((logits[:, None] + moved).softmax(2) - logits.softmax(1)[:, None]).flatten(1)
    return (change @ change.T) * (features @ features.T) / MOVES


def matching_pursuit(kernel: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Greedily chosen examples, and weights with which they give the mean of all.

    Args:
        kernel: Inner products of the examples, shape (N, N).
        n: How many to choose.

    Returns:
        Rows in the order chosen, and positive weights, both of shape (min(n, N),); equal weights if all are chosen.
    """
    if n >= len(kernel):
        return torch.arange(len(kernel)), kernel.new_ones(len(kernel))
    # The weights' sum is fitted with the changes, as one more number that is the same for every example.
    kernel = kernel.double() / kernel.diagonal().double().mean().clamp_min(1e-300) + SUM
    target, lengths = kernel.mean(1), kernel.diagonal().sqrt()
    free = torch.ones(len(kernel), dtype=torch.bool, device=kernel.device)
    passive, pull = free[:0], target
    rows: list[int] = []
    weights = target[:0]
    for _ in range(n):
        rows.append(int((pull / lengths).where(free, -torch.inf).argmax()))
        free[rows[-1]] = False
        passive = F.pad(passive, (0, 1), value=True)
        gram = kernel[rows][:, rows]
        weights, passive = bounded_least_squares(gram, target[rows], FLOOR / len(rows), passive)
        pull = target - weights @ kernel[rows]
    return torch.tensor(rows), weights


def bounded_least_squares(gram: Tensor, target: Tensor, floor: float, passive: Tensor) -> tuple[Tensor, Tensor]:
    """Minimiser of 1/2 w^T G w - b^T w over w >= floor, by principal pivoting (Kim & Park, SIAM J. Sci. Comput. 2011).

    Args:
        gram: G, shape (K, K).
        target: b, shape (K,).
        floor: Least weight.
        passive: Which weights are thought to lie above the floor, shape (K,).

    Returns:
        The weights, and which of them lie above the floor, both of shape (K,).
    """
    gram = gram + 1e-9 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    target = target - floor * gram.sum(1)
    for _ in range(PIVOTS):
        above = torch.zeros_like(target)
        above[passive] = torch.linalg.solve(gram[passive][:, passive], target[passive])
        pull = target - gram @ above
        wrong = torch.where(passive, above < 0, pull > 1e-9)
        if not wrong.any():
            break
        passive = passive ^ wrong
    return floor + above.clamp_min(0), passive
