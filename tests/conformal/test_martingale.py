"""The martingale by its definition, its false alarms, and an alarm at a change."""

import pytest
import torch

from bayesdual.conformal import alarm, jumper_martingale, p_values


def test_p_values_by_hand():
    u = torch.rand(3, generator=torch.Generator().manual_seed(0)).tolist()
    p = p_values(torch.tensor([2.0, 3.0, 2.0]), torch.tensor([1.0]), torch.Generator().manual_seed(0))
    assert p.tolist() == pytest.approx([u[0] / 2, u[1] / 3, (1 + 2 * u[2]) / 4])


def test_martingale_by_hand_and_without_overflow():
    capital = [1 / 3] * 3
    for value in (0.1, 0.9, 0.2):
        total = sum(capital)
        capital = [
            (0.8 * c + 0.2 / 3 * total) * (1 + e * (value - 0.5)) for c, e in zip(capital, (-1, 0, 1), strict=True)
        ]
    log_s = jumper_martingale(torch.tensor([0.1, 0.9, 0.2]), jump=0.2)
    assert 10 ** float(log_s[-1]) == pytest.approx(sum(capital))
    assert jumper_martingale(torch.zeros(5000))[-1].isfinite()


def test_alarms_are_rare_without_a_change_and_soon_after_one():
    false, delays = 0, []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randn(600, generator=generator)
        false += alarm(jumper_martingale(p_values(scores, generator=generator))) is not None
        if seed < 20:
            scores[300:] += 1.5
            delays.append(alarm(jumper_martingale(p_values(scores, generator=generator))))
    assert false <= 3  # 1 of 100 is allowed
    assert all(delay is not None and 300 < delay < 380 for delay in delays)
