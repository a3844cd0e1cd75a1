"""IVON with steps of one length in each matrix."""

import pytest
import torch
from torch import nn

from bayesdual.ivon import IVONByMatrix


def test_each_matrix_moves_by_the_step_whatever_its_gradient_and_the_noise_is_a_tenth_of_the_rules():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 200))
    network[1].requires_grad_(False)
    before = [p.detach().clone() for p in network.parameters() if p.requires_grad]
    optimizer = IVONByMatrix().make(network.parameters(), 50, 25)
    with optimizer.sampled_params():
        noise = network[3].weight.detach() - before[2]
    assert float(noise.std()) == pytest.approx((4.5 / sum(p.numel() for p in before)) ** 0.5, rel=0.1)
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        network.eval()(torch.randn(4, 3, 3, 3)).square().sum().backward()
    optimizer.step()
    after = [p.detach() for p in network.parameters() if p.requires_grad]
    lengths = [float((a - b).square().mean().sqrt()) for a, b in zip(after, before, strict=True)]
    assert lengths == pytest.approx([0.05 / 5] * 4, rel=0.03)


def test_what_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="reach is 0: give a positive number"):
        IVONByMatrix(reach=0)
    with pytest.raises(ValueError, match="steps is 0: steps of one length in each matrix need a positive number"):
        IVONByMatrix().make([nn.Parameter(torch.zeros(2))], 50, 0)
