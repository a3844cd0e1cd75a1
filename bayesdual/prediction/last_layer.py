"""What predictions by a posterior of the last layer begin with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bayesdual.posterior import LastLayerPosterior, Posterior, check_size, watching_last_linear
from bayesdual.stream import Predict


@torch.no_grad()
def check_last_layer(module: nn.Module, predict: Predict, x: Tensor, t: Tensor) -> None:
    """Refuses a network that will have no posterior of its last layer.

    Args:
        module: The network, in eval mode.
        predict: Its logits.
        x: An input, shape (1, ...).
        t: Its task label, shape (1,).

    Raises:
        ValueError: The logits are not the output of one linear layer, or it is too large.
    """
    with watching_last_linear(module) as last:
        f = predict(x, t).float()
    if last.layer is None or not last.gives(f):
        raise ValueError(
            "model.prediction needs a network whose logits are the output of one linear layer, and model.network's are "
            "not: give model.prediction mean."
        )
    check_size(last.layer.weight.numel() + (0 if last.layer.bias is None else last.layer.bias.numel()))


@torch.no_grad()
def logits_and_features(
    module: nn.Module, predict: Predict, posterior: Posterior | None, x: Tensor, t: Tensor
) -> tuple[LastLayerPosterior, Tensor, Tensor]:
    """The posterior of the last layer, the logits (B, C) and what goes into the layer (B, D).

    Raises:
        ValueError: There is no posterior of a last layer, or it is of another network.
    """
    if posterior is None or posterior.last_layer is None:
        raise ValueError(
            "there is no posterior of a last layer: it needs a memory and a network whose logits are the output of one "
            "linear layer; predict by the mean."
        )
    with watching_last_linear(module) as last:
        f = predict(x, t).float()
    if last.name != posterior.last_layer.name or last.features is None or not last.gives(f):
        raise ValueError(
            f"the posterior is of a network whose last layer is {posterior.last_layer.name!r}, not {last.name!r}: "
            "give the posterior of this network."
        )
    return posterior.last_layer, f, last.features.float()
