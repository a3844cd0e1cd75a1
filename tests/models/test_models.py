"""Small networks give logits of the right shape, and are asked without being changed."""

import pytest
import torch
from torch import nn

from bayesdual.models import CNN, MLP, LeNet, ResNet18, evaluating, sees_means

NETWORKS = {
    "MLP": (MLP(64, [5, 6], 3), (1, 8, 8), 64 * 5 + 5 + 5 * 6 + 6 + 6 * 3 + 3),
    "CNN": (CNN(image_size=8, channels=2, n_classes=3), (2, 8, 8), None),
    "LeNet of 28": (LeNet(28, n_classes=3), (1, 28, 28), None),
    "LeNet of 32": (LeNet(32, n_classes=3), (1, 32, 32), None),
    "ResNet18": (ResNet18(n_classes=3), (3, 32, 32), 11_170_000),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_map_images_to_logits_and_end_in_a_linear_layer(name):
    network, image, parameters = NETWORKS[name]
    assert network(torch.rand(2, *image)).shape == (2, 3)
    assert isinstance(list(network.modules())[-1], nn.Linear), "its inputs are the features that memories are chosen by"
    if parameters is not None:
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=1e-3)


def test_both_sizes_of_lenet_have_the_same_weights_and_others_are_refused():
    shapes = [[p.shape for p in LeNet(size).parameters()] for size in (28, 32)]
    assert shapes[0] == shapes[1]
    with pytest.raises(ValueError, match="LeNet takes images of 28 or 32 pixels, not 20"):
        LeNet(20)


def test_shortcuts_of_a_residual_network_go_around_its_convolutions():
    network = ResNet18(n_classes=3, width=4).eval()
    block = network[3][0]
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
    x = torch.rand(2, 4, 8, 8)
    assert torch.allclose(block(x), x), "an identity, where the channels stay"
    assert network[4][0](x).shape == (2, 8, 4, 4)


@pytest.mark.parametrize(
    ("network", "sees"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 2)), True),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), False),
        (nn.Sequential(nn.Linear(4, 2), nn.GRU(2, 2)), False),
        (nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 2)), False),
        (nn.Identity(), False),
    ],
    ids=["linear", "norm first", "recurrent", "embedding", "no weights"],
)
def test_means_stand_for_examples_only_where_the_first_layer_is_linear_in_them(network, sees):
    assert sees_means(network) is sees


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_is_afterwards_in_the_mode_it_was_in(fails):
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    network.train()
    network[1].eval()
    before = [module.training for module in network.modules()]
    assert True in before and False in before
    try:
        with evaluating(network):
            assert not any(module.training for module in network.modules())
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert [module.training for module in network.modules()] == before


@pytest.mark.parametrize("network", [MLP(16, (8,), 3), CNN(16, 1, 3), LeNet(28, 1, 3), ResNet18(1, 3, 2)])
def test_a_slice_of_a_network_is_its_layers(network):
    x = torch.randn(2, 1, 28, 28) if isinstance(network, LeNet) else torch.randn(2, 1, 4, 4)
    x = torch.randn(2, 1, 16, 16) if isinstance(network, CNN) else x
    network.eval()
    assert torch.equal(network[-1](network[:-1](x)), network(x)) and network[-1] is network[:][-1]
