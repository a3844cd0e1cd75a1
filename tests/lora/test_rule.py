"""IVON's settings for an adapter, which need no extra."""

import pytest
import torch

from bayesdual.lora import IVONForLoRA


def test_every_matrix_moves_by_the_step_whatever_its_gradient_and_the_noise_is_the_rules():
    torch.manual_seed(0)
    weight, other = torch.nn.Parameter(torch.zeros(800)), torch.nn.Parameter(torch.zeros(10, 10))
    frozen = torch.nn.Parameter(torch.zeros(100), requires_grad=False)
    optimizer = IVONForLoRA(2e-3).make([weight, other, frozen], 50, 7)
    deviation = torch.cat([sample(optimizer, weight) for _ in range(20)]).std()
    assert float(deviation) == pytest.approx((45 / 900) ** 0.5, rel=0.05)
    slopes = torch.logspace(-3, 2, 800)
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        (slopes * weight).sum().add(1e-3 * other.sum()).backward()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), -2e-3 * slopes / slopes.square().mean().sqrt())
    torch.testing.assert_close(other.detach(), torch.full((10, 10), -2e-3))


def sample(optimizer, weight):
    with optimizer.sampled_params():
        return weight.detach().clone()


def test_a_step_that_is_none_is_refused():
    with pytest.raises(ValueError, match="step is 0: give a positive number"):
        IVONForLoRA(0)
