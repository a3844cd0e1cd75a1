"""The evidence: by quadrature where it is exact, its maximum, and blocks by class against the whole precision."""

import math

import pytest
import torch

from bayesdual.posterior import ClassBlocks, LastLayerPosterior, evidence_precision, log_evidence


def test_of_a_gaussian_it_is_the_log_density_of_the_data():
    """y = w + noise of variance 1 / lambda: p(y | delta) = N(0, 1 / lambda + 1 / delta), w the posterior's mode."""
    values, delta, y = torch.tensor([4.0, 0.5, 9.0]), 2.0, torch.tensor([1.0, -0.7, 0.3])
    for other in (0.3, 2.0, 11.0):
        modes = [y * values / (values + d) for d in (delta, other)]
        fits = [float(-0.5 * (values * (y - w).square()).sum()) for w in modes]
        ours = [
            f + log_evidence(values, float(w.square().sum()), d)
            for f, w, d in zip(fits, modes, (delta, other), strict=True)
        ]
        exact = [
            float(torch.distributions.Normal(0, (1 / values + 1 / d).sqrt()).log_prob(y).sum()) for d in (delta, other)
        ]
        assert ours[1] - ours[0] == pytest.approx(exact[1] - exact[0], abs=1e-5)


def test_the_precision_is_where_the_evidence_is_the_largest():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(40, generator=generator).exp() * torch.logspace(-3, 3, 40)
    best = evidence_precision(values, 12.0)
    around = [log_evidence(values, 12.0, best * factor) for factor in (0.9, 0.999, 1.0, 1.001, 1.1)]
    assert max(around) == around[2]
    assert best * 12.0 == pytest.approx(float((values / (values + best)).sum()), rel=1e-6)


def test_it_finds_the_prior_that_weights_were_drawn_from():
    weights = torch.randn(5000, generator=torch.Generator().manual_seed(1)) / math.sqrt(30.0)
    assert evidence_precision(torch.full((5000,), 1e6), float(weights.square().sum())) == pytest.approx(30, rel=0.05)


@pytest.mark.parametrize(
    ("values", "length", "said"),
    [
        ([0.0, 0.0], 1.0, "all 0"),
        ([1.0, 0.0], 0.0, "all 0"),
        ([1.0, -1e-3], 1.0, "negative or not finite"),
        ([1.0, math.nan], 1.0, "negative or not finite"),
    ],
)
def test_where_there_is_none_it_says_so(values, length, said):
    with pytest.raises(ValueError, match=said):
        evidence_precision(torch.tensor(values), length)


def posterior(classes=3, size=4, delta=0.7):
    generator = torch.Generator().manual_seed(2)
    phi = torch.cat([torch.randn(20, size - 1, generator=generator), torch.ones(20, 1)], 1)
    p = torch.randn(20, classes, generator=generator).softmax(1)
    return LastLayerPosterior("head", phi, p, torch.rand(20, generator=generator) * 9, delta)


def test_blocks_are_those_of_the_whole_precision():
    last = posterior()
    blocks = last.precision().view(3, 4, 3, 4)
    phi = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    with_one = torch.nn.functional.pad(phi, (0, 1), value=1.0)
    expected = torch.stack([(with_one @ torch.linalg.inv(blocks[c, :, c]) * with_one).sum(1) for c in range(3)], 1)
    torch.testing.assert_close(ClassBlocks.of(last).variance(phi), expected, atol=1e-5, rtol=1e-4)


def test_blocks_that_are_too_large_are_refused():
    huge = LastLayerPosterior("head", torch.ones(1, 1001), torch.full((1, 100), 0.01), torch.ones(1), 1.0)
    with pytest.raises(ValueError, match="100 classes of 1001 weights each, whose covariances would take 0.4 GB"):
        ClassBlocks.of(huge)
