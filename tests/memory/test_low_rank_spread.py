"""The spread of features: leading directions, what is left on the diagonal, and the bytes of both."""

import pytest
import torch

from bayesdual.memory import LowRankSpread, bytes_of_vectors

D = 80
NEARLY = 0.25  # four bits a number


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def deviations(n=900, seed=0):
    """Of ten strong directions and little else."""
    strong = torch.randn(n, 10, generator=generator(seed)) @ torch.randn(10, D, generator=generator(9))
    return strong + 0.3 * torch.randn(n, D, generator=generator(seed + 1))


def spread_of(rows, rank=10):
    spread = LowRankSpread(rank)
    for part in rows.split(250):
        spread.add(part)
    return spread


def dense(spread):
    return spread.through(torch.eye(D), 1)


def test_leading_directions_and_the_diagonal_are_those_of_the_sum():
    rows = deviations()
    kept, whole = dense(spread_of(rows)), rows.T @ rows
    torch.testing.assert_close(kept.trace(), whole.trace(), rtol=0.06, atol=0)
    assert (kept - whole).norm() < NEARLY * whole.norm()
    only = dense(spread_of(rows, rank=0))
    torch.testing.assert_close(only, torch.diag(whole.diagonal()), rtol=0.02, atol=0)


def test_what_is_lost_later_is_added():
    first, second = deviations(700, 3), deviations(700, 5)
    spread = spread_of(first)
    dense(spread)
    spread.add(second)
    whole = first.T @ first + second.T @ second
    assert (dense(spread) - whole).norm() < NEARLY * whole.norm()


def test_more_rows_than_numbers_and_fewer_give_the_same():
    rows = deviations(100)
    many, few = LowRankSpread(10), LowRankSpread(10)
    many.add(rows)
    for part in rows.split(40):
        few.add(part)
        few.parts()
    assert (dense(many) - dense(few)).norm() < NEARLY * dense(many).norm()


def test_noise_has_the_covariance():
    spread = spread_of(deviations())
    noisy = spread.around(torch.full((20_000, D), 5.0), 900, 0.5, generator())
    assert (noisy.mean(0) - 5).abs().max() < 0.1
    expected = 0.25 * dense(spread) / 900
    assert (noisy.T.cov() - expected).norm() < 0.03 * expected.norm()


def test_it_comes_back_from_its_state_and_says_its_bytes(tmp_path):
    spread, again = spread_of(deviations(), rank=5), LowRankSpread(0)
    torch.save(spread.state_dict(), tmp_path / "spread")
    again.load_state_dict(torch.load(tmp_path / "spread", weights_only=True))
    assert torch.equal(dense(again), dense(spread)) and again.rank == 5
    assert spread.nbytes == bytes_of_vectors((5, D)) + 2 * D
    empty = LowRankSpread(3)
    assert not empty and torch.equal(empty.around(torch.ones(2, D), 9, 1.0, generator()), torch.ones(2, D))
    again.load_state_dict(empty.state_dict())
    assert not again
    with pytest.raises(ValueError, match="no spread before"):
        again.parts()
    with pytest.raises(ValueError, match="infinite"):
        empty.add(torch.full((1, D), torch.nan))
