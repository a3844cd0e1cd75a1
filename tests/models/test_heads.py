"""A head that grows keeps what it knows."""

import torch
from torch import nn

from bayesdual.models import MLP, widen, widen_as_saved


def test_old_rows_stay_and_new_ones_are_as_in_a_new_layer():
    layer = nn.Linear(8, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    widen(layer, 5)
    assert layer.weight.shape == (5, 8) and layer.bias.shape == (5,) and layer.out_features == 5
    assert torch.equal(layer.weight[:3], weight) and torch.equal(layer.bias[:3], bias)
    assert 0 < float(layer.weight[3:].abs().max()) <= 8**-0.5


def test_only_a_head_grows_to_what_was_saved():
    network = MLP(4, (6,), 2)
    widen_as_saved(network, MLP(4, (6,), 3).state_dict())
    assert network[-1].out_features == 3
    widen_as_saved(network, MLP(4, (9,), 3).state_dict())
    assert network[1].out_features == 6
