"""Small networks, and what a network is asked before it is used."""

from bayesdual.models.backbones import EfficientNetLite
from bayesdual.models.heads import of_network, widen, widen_as_saved
from bayesdual.models.probes import WritesFiles, evaluating, linear_head, sees_means
from bayesdual.models.small import CNN, MLP, LeNet, ResNet18

__all__ = [
    "CNN",
    "EfficientNetLite",
    "LeNet",
    "MLP",
    "ResNet18",
    "WritesFiles",
    "evaluating",
    "linear_head",
    "of_network",
    "sees_means",
    "widen",
    "widen_as_saved",
]
