"""Heads that grow: more rows of the last linear layer for more classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bayesdual.tensors import corner


def widen(layer: nn.Linear, n_outputs: int) -> None:
    """Gives a linear layer more outputs, in place; the old ones stay, and the new begin as those of a new layer do.

    Args:
        layer: The layer; its parameters are replaced.
        n_outputs: How many it is to have, at least as many as it has.
    """
    new = nn.Linear(layer.in_features, n_outputs, layer.bias is not None)
    new.to(device=layer.weight.device, dtype=layer.weight.dtype)
    with torch.no_grad():
        for name, old in list(layer.named_parameters(recurse=False)):
            wider = getattr(new, name)
            corner(wider, old.shape).copy_(old)
            setattr(layer, name, wider.requires_grad_(old.requires_grad))
    layer.out_features = n_outputs


def widen_as_saved(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Widens the head of a network that was made as it was at first, where it has grown since it was saved.

    Args:
        network: The network.
        tensors: What was saved, by the names of its parameters.
    """
    other = {
        n.rpartition(".")[0] for n, v in network.state_dict().items() if n in tensors and tensors[n].shape != v.shape
    }
    if len(other) != 1:
        return  # it has not grown, or is another network
    name = other.pop()
    layer, saved = network.get_submodule(name), tensors.get(f"{name}.weight" if name else "weight")
    if not isinstance(layer, nn.Linear) or saved is None or saved.shape[1:] != layer.weight.shape[1:]:
        return
    if len(saved) > layer.out_features:
        widen(layer, len(saved))


def of_network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a checkpoint's tensors that are the network's, by its own names."""
    return {name.removeprefix("network."): v for name, v in tensors.items() if name.startswith("network.")}
