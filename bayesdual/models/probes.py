"""What a network is asked: its modes, whether it sees means, and whether it has files of its own to write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.modules.conv import _ConvNd


def sees_means(module: nn.Module) -> bool:
    """Whether the first layer with weights is linear in a whole input, so that means can stand for examples.

    Layers are looked at in the order in which they were made; so a network with a convolution or an embedding anywhere
    is taken for one that begins with it.
    """
    first = next((m for m in module.modules() if any(True for _ in m.parameters(recurse=False))), None)
    other = (_ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)
    return isinstance(first, nn.Linear) and not any(isinstance(m, other) for m in module.modules())


def linear_head(module: nn.Module) -> nn.Linear | None:
    """The layer that logits come from, where the network is nothing but a linear layer of flattened inputs."""
    parts = [part for part in module.modules() if not isinstance(part, (nn.Sequential, nn.Flatten, nn.Identity))]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], nn.Linear) else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode while entered; afterwards each of its modules is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@runtime_checkable
class WritesFiles(Protocol):
    """A network that others' programs can read: it writes files of theirs into a run directory."""

    def save_files(self, directory: str | Path) -> None: ...
