"""Gradient matching: the kernel of the K-prior's gradient, the pursuit, and what the weights are worth."""

import pytest
import torch

from bayesdual import gradient_matching as module
from bayesdual.gradient_matching import bounded_least_squares, gradient_kernel, gradient_matching, matching_pursuit
from bayesdual.selection import Candidates, random


def candidates(n=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 12, generator=generator).relu()
    weights = torch.randn(12, 5, generator=generator)
    return Candidates(features, features @ weights, torch.ones(n))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def error(c, rows, weights, seed=99):
    """Of the change of the K-prior's gradient under moves that the selection has not seen, relative."""
    phi = torch.nn.functional.pad(c.features, (0, 1), value=1.0)
    weights = weights / weights.sum() * len(c)
    errors = []
    for move in torch.randn(20, phi.shape[1], c.logits.shape[1], generator=seeded(seed)) * 0.3:
        change = (c.logits + phi @ move).softmax(1) - c.logits.softmax(1)
        whole = change.T @ phi
        errors.append((whole - (change[rows] * weights[:, None]).T @ phi[rows]).norm() / whole.norm())
    return float(torch.stack(errors).mean())


def test_contract():
    rows, weights = gradient_matching(candidates(), 20, seeded())
    assert len(rows) == len(weights) == len(rows.unique()) == 20
    assert weights.dtype == torch.float32 and weights.min() >= module.FLOOR / 20 * 0.999
    assert torch.equal(rows, gradient_matching(candidates(), 20, seeded())[0])
    rows, weights = gradient_matching(candidates(4), 10, seeded())
    assert rows.tolist() == [0, 1, 2, 3] and weights.tolist() == [1.0] * 4


@pytest.mark.parametrize("n", [5, 20, 60])
def test_gradient_of_unseen_moves_is_nearer_than_that_of_any_random_memory(n):
    c = candidates()
    chance = min(error(c, *random(c, n, seeded(s))) for s in range(5))
    assert error(c, *gradient_matching(c, n, seeded())) < chance


def test_the_first_part_of_a_memory_is_a_memory():
    """When shares shrink, the tail is dropped: what is left, weights rescaled, still beats chance."""
    c = candidates()
    rows, weights = gradient_matching(c, 40, seeded())
    chance = sum(error(c, *random(c, 20, seeded(s))) for s in range(5)) / 5
    assert error(c, rows[:20], weights[:20]) < chance


def test_kernel_is_the_inner_product_of_the_gradients_changes():
    c = candidates(6)
    kernel = gradient_kernel(c, seeded())
    phi = torch.nn.functional.pad(c.features, (0, 1), value=1.0)
    moves = torch.randn(13, module.MOVES * 5, generator=seeded()).unflatten(1, (module.MOVES, 5))
    want = torch.zeros(6, 6)
    for m in range(module.MOVES):
        moved = phi @ moves[:, m]
        moved = moved * module.SIZE / moved.square().mean().sqrt()
        h = torch.einsum("nc,nd->ncd", (c.logits + moved).softmax(1) - c.logits.softmax(1), phi).flatten(1)
        want += h @ h.T / module.MOVES
    torch.testing.assert_close(kernel, want, rtol=1e-4, atol=1e-6)


def test_pursuit_finds_examples_that_the_others_repeat():
    """Of two kinds of example, 30 of one and 10 of the other, one each is enough, with weights 3 to 1."""
    h = torch.cat([torch.tensor([[1.0, 0.0]]).expand(30, 2), torch.tensor([[0.0, 1.0]]).expand(10, 2)])
    rows, weights = matching_pursuit(h @ h.T, 2)
    assert sorted((rows >= 30).tolist()) == [False, True]
    assert float(weights[rows < 30] / weights[rows >= 30]) == pytest.approx(3, rel=0.02)


def test_examples_that_no_move_changes_do_no_harm():
    rows, weights = matching_pursuit(torch.zeros(9, 9), 3)
    assert len(rows.unique()) == 3 and weights.isfinite().all() and (weights > 0).all()


def test_bounded_least_squares_meets_its_conditions():
    """Above the floor the gradient is 0; at the floor it does not pull upwards."""
    for seed in range(20):
        a = torch.randn(30, 8, generator=seeded(seed), dtype=torch.float64)
        gram, target = a.T @ a, a.T @ torch.randn(30, generator=seeded(seed + 100), dtype=torch.float64)
        weights, above = bounded_least_squares(gram, target, 0.05, torch.ones(8, dtype=torch.bool))
        pull = target - gram @ weights
        assert (weights >= 0.05).all() and pull[above].abs().max() < 1e-6
        assert (~above).any() == (weights == 0.05).any() and (pull[~above] <= 1e-6).all()
