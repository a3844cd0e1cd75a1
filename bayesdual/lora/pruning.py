"""What the posterior is least sure of, left out: the entries of an adapter with the largest variance become 0.

Source: IVON-LoRA (Cong et al., 2024), which prunes by the variances that IVON learns beside the means.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def prune_uncertain(network: nn.Module, variance: Mapping[str, Tensor], share: float) -> int:
    """Sets the least certain entries of an adapter to 0, in place; the head stays as it is.

    Args:
        network: A :class:`bayesdual.lora.LoRAClassifier`, or any module with PEFT's LoRA layers.
        variance: Of its weights, by name, as ``Posterior.variance`` gives them.
        share: How many of the entries, between 0 and 1.

    Returns:
        How many entries that is.

    Raises:
        ValueError: ``share`` is out of its range, or there is no variance of a LoRA weight of the network.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: it is a share between 0 and 1.")
    weights = {n: p for n, p in network.named_parameters() if ".lora_" in n and n in variance}
    if not weights:
        raise ValueError(
            "there is no variance of a LoRA weight of this network: give those of its adapter's posterior."
        )
    variances = torch.cat([variance[n].flatten().to(p.device) for n, p in weights.items()])
    least = variances.argsort(descending=True, stable=True)[: round(share * len(variances))]
    kept = torch.ones_like(variances)
    kept[least] = 0.0
    for p, mask in zip(weights.values(), kept.split([p.numel() for p in weights.values()]), strict=True):
        p.mul_(mask.view_as(p))
    return len(least)
