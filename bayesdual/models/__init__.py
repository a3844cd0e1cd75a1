"""Small networks, and what a network is asked before it is used."""

from bayesdual.models.heads import of_network, widen, widen_as_saved
from bayesdual.models.probes import WritesFiles, evaluating, sees_means
from bayesdual.models.small import CNN, MLP, LeNet, ResNet18

__all__ = [
    "CNN",
    "LeNet",
    "MLP",
    "ResNet18",
    "WritesFiles",
    "evaluating",
    "of_network",
    "sees_means",
    "widen",
    "widen_as_saved",
]
