"""What predictions by a posterior of the last layer begin with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bayesdual.posterior import LastLayerPosterior, Posterior, watching_last_linear
from bayesdual.stream import Predict


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
