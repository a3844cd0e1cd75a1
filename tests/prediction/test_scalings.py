"""Scalings of logits: what they find, what weights do, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F

from bayesdual.prediction import fit_isotonic, fit_temperature, fit_vector_scaling


def drawn(n=4000, classes=4, seed=0):
    """True logits, and labels drawn by them."""
    generator = torch.Generator().manual_seed(seed)
    f = 2 * torch.randn(n, classes, generator=generator)
    return f, torch.multinomial(f.softmax(1), 1, generator=generator)[:, 0]


def test_temperature_is_found_again():
    f, y = drawn()
    assert fit_temperature(2.5 * f, y) == pytest.approx(2.5, rel=0.06)
    assert fit_temperature(0.2 * f, y) == pytest.approx(0.2, rel=0.06)


def test_weights_count_as_copies_do():
    f, y = drawn(200)
    copies = torch.randint(1, 4, (200,), generator=torch.Generator().manual_seed(1))
    many = torch.arange(200).repeat_interleave(copies)
    assert fit_temperature(3 * f, y, copies) == pytest.approx(fit_temperature(3 * f[many], y[many]), rel=1e-4)
    p = (3 * f).softmax(1)
    assert torch.allclose(fit_isotonic(p, y, copies)(p), fit_isotonic(p[many], y[many])(p), atol=1e-6)


def test_vector_scaling_finds_factors_and_offsets_and_few_examples_move_nothing():
    f, y = drawn()
    a, b = torch.tensor([0.5, 2.0, 1.0, 1.5]), torch.tensor([0.3, -0.2, 0.0, 0.5])
    found_a, found_b = fit_vector_scaling((f - b) / a, y)
    assert torch.allclose(found_a, a, atol=0.12) and torch.allclose(found_b - found_b[2], b, atol=0.15)
    few_a, few_b = fit_vector_scaling(f[:1], y[:1])
    assert (few_a - 1).abs().max() < 0.7 and few_b.abs().max() < 0.7


def test_isotonic_scaling_lowers_the_nll_of_others_and_keeps_probabilities():
    (f, y), (g, z) = drawn(seed=0), drawn(seed=1)
    calibrated = fit_isotonic((3 * f).softmax(1), y)((3 * g).softmax(1))
    assert torch.allclose(calibrated.sum(1), torch.ones(len(z)), atol=1e-5) and bool((calibrated >= 0).all())
    nll = lambda p: float(F.nll_loss(p.clamp_min(1e-6).log(), z))  # noqa: E731
    assert nll(calibrated) < nll((3 * g).softmax(1)) - 0.05


def test_no_examples_are_refused():
    f, y = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    for fit in (fit_temperature, fit_vector_scaling, fit_isotonic):
        with pytest.raises(ValueError, match="there are no examples to fit"):
            fit(f, y)
