"""The noise: its distribution, and what it depends on."""

import pytest
import torch

from bayesdual.ivon import IVON
from bayesdual.ivon.noise import standard_normal_

N = 1_000_000


def draw(key, size=N, dtype=torch.float32):
    return standard_normal_(torch.empty(size, dtype=dtype), key).double()


@pytest.mark.parametrize("key", ["0 training 0 0", "0 training 0 1", "1 training 0 0", "0 prediction 0 0"])
def test_is_standard_normal(key):
    z = draw(key)
    assert len(z) == N
    for moment, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # variance of z^moment
        assert z.pow(moment).mean().item() == pytest.approx(expected, abs=4 * (variance / N) ** 0.5)
    distance = (torch.special.ndtr(z.sort().values) - (torch.arange(N) + 0.5) / N).abs().max().item()
    assert distance < 1.95 / N**0.5  # Kolmogorov-Smirnov at 0.1%
    for tail, chance in ((3, 2.6998e-3), (4, 6.334e-5)):
        assert int((z.abs() > tail).sum()) == pytest.approx(chance * N, abs=4 * (chance * N) ** 0.5)


def test_values_do_not_depend_on_each_other():
    """Neighbours share their random bits or do not; either way all cells of a 16 x 16 grid are equally likely."""
    z = draw("0 training 0 0")
    for first, second in ((z[::2], z[1::2]), (z[1:-1:2], z[2::2]), (z[:-4:4], z[4::4])):
        for f, g in ((lambda x: x, lambda x: x), (torch.square, torch.square), (lambda x: x, lambda x: x**3)):
            correlation = torch.stack([f(first), g(second)]).corrcoef()[0, 1].item()
            assert abs(correlation) < 4.5 / len(first) ** 0.5
        rows, columns = ((torch.special.ndtr(x) * 16).long() for x in (first, second))
        counts = torch.bincount(rows * 16 + columns, minlength=256).double()
        expected = len(first) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 4 * (2 * 255) ** 0.5


def test_keys_do_not_depend_on_each_other():
    """Keys that differ in the seed, what it is for, the step, or the block."""
    keys = [f"{seed} {purpose} {step} {block}" for seed in (0, 1) for purpose in ("training", "prediction")
            for step in (0, 1, 10) for block in (0, 1)]  # fmt: skip
    z = torch.stack([draw(key, 100_000) for key in keys])
    for values in (z, z**2):
        assert (values.corrcoef() - torch.eye(len(keys))).abs().max() < 5 / 100_000**0.5
    assert torch.equal(z[0], draw(keys[0], 100_000))


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 1001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_size(size, dtype):
    noise = torch.full((size,), torch.nan, dtype=dtype)
    assert standard_normal_(noise, "a") is noise and not noise.isnan().any()
    assert torch.equal(noise.double(), draw("a", size, dtype))


def test_is_the_same_in_every_release():
    """A run that is resumed goes on with the same draws."""
    expected = torch.tensor([-0.10263, -1.82215, 0.98072, -0.34717])
    torch.testing.assert_close(standard_normal_(torch.empty(4), "0 training 0 0"), expected, rtol=0, atol=1e-5)


def test_samples_of_an_optimizer_differ_in_all_blocks_and_steps(monkeypatch):
    monkeypatch.setattr("bayesdual.ivon.layout.CPU_BLOCK", 1 << 14)
    p = torch.nn.Parameter(torch.full((6, 1 << 14), 0.3))  # where m + eps - m is not m, as it is rounded
    optimizer = IVON([p], lr=0.1, ess=100, hess_init=0.5, weight_decay=0.5, seed=3)
    draws = []
    for train in (True, True, False, False):
        with optimizer.sampled_params(train=train):
            draws.append((p.detach() - 0.3) * 10)
        optimizer.discard_samples()
    assert torch.equal(p, torch.full_like(p, 0.3))
    z = torch.cat(draws)
    assert (z.corrcoef() - torch.eye(len(z))).abs().max() < 5 / (1 << 14) ** 0.5
    torch.testing.assert_close(z.var(1), torch.ones(len(z)), rtol=0, atol=0.06)
