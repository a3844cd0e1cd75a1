"""CoVON: its step is that of the equations, and the posterior of an experience is the prior of the next."""

import pytest
import torch
from torch import nn

from bayesdual.strategies.baselines.covon import CoVON

LR, H0, S0, B1, B2, ESS = 0.1, 0.5, 0.02, 0.9, 0.8, 100.0


def test_steps_and_boundaries_are_those_of_the_equations():
    torch.manual_seed(0)
    p = nn.Parameter(torch.tensor([0.3, -2.0]))
    optimizer = CoVON([p], LR, H0, S0, B1, B2, clip_radius=0.4)
    m, m0, delta = p.detach().clone().double(), torch.zeros(2).double(), torch.full((2,), S0).double()
    clipped = False
    for _ in range(2):
        optimizer.begin_experience(ESS)
        h, u = torch.full((2,), H0).double(), torch.zeros(2).double()
        for t in range(1, 4):
            optimizer.sample()
            eps = p.detach().double() - m
            g = 4 * (p.detach().double() - 1) ** 3
            p.grad = 4 * (p.detach() - 1) ** 3
            optimizer.restore()
            torch.testing.assert_close(p.detach().double(), m, atol=1e-5, rtol=1e-5)
            optimizer.step()
            f = ESS * (h + delta) * eps * g
            u = B1 * u + (1 - B1) * g
            h = B2 * h + (1 - B2) * f + (1 - B2) ** 2 * (h - f) ** 2 / (2 * (h + delta))
            direction = (u / (1 - B1**t) + delta * (m - m0)) / (h + delta)
            clipped = clipped or bool((direction.abs() > 0.4).any())
            m = m - LR * direction.clamp(-0.4, 0.4)
            torch.testing.assert_close(p.detach().double(), m, atol=1e-4, rtol=1e-4)
        optimizer.end_experience()
        m0, delta = m.clone(), delta + h
        torch.testing.assert_close(optimizer.prior_precisions()[0].double(), ESS * delta, atol=1e-2, rtol=1e-3)
    assert clipped


def test_samples_have_the_variance_of_the_posterior():
    torch.manual_seed(0)
    p = nn.Parameter(torch.ones(20000))
    optimizer = CoVON([p], LR, H0, S0)
    optimizer.begin_experience(ESS)
    optimizer.sample()
    assert p.detach().mean() == pytest.approx(1, abs=0.01)
    assert p.detach().var() == pytest.approx(1 / (ESS * (H0 + S0)), rel=0.05)
