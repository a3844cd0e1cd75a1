"""Small networks, and what a network is asked before it is used."""

from bayesdual.models.probes import WritesFiles, evaluating, sees_means
from bayesdual.models.small import CNN, MLP, LeNet, ResNet18

__all__ = ["CNN", "LeNet", "MLP", "ResNet18", "WritesFiles", "evaluating", "sees_means"]
