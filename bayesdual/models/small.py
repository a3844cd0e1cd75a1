"""Small networks at hand: MLP, CNN, LeNet-5 and a ResNet-18 for 32x32 images.

All map images (B, channels, H, W), or for the MLP anything that flattens to ``in_features``, to logits (B, C).
Their last layer is a ``Linear``, whose input are the features that memories are chosen by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def layers_at(self: nn.Sequential, idx: Any) -> Any:
    """A layer, or a slice of layers as a plain ``nn.Sequential``, as that has no sizes of its own."""
    return nn.Sequential(*[*self][idx]) if isinstance(idx, slice) else nn.Sequential.__getitem__(self, idx)


class MLP(nn.Sequential):
    """A fully connected network with ReLU.

    Args:
        in_features: Size of an input, flattened (784 for MNIST, 64 for the digits).
        hidden: Sizes of the hidden layers.
        n_classes: Number of logits.
    """

    __getitem__ = layers_at

    def __init__(self, in_features: int, hidden: Sequence[int] = (256, 256), n_classes: int = 10) -> None:
        sizes = [in_features, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(a, b), nn.ReLU()]
        super().__init__(*layers, nn.Linear(sizes[-1], n_classes))


class CNN(nn.Sequential):
    """Two 3x3 convolutions of 16 and 32 channels, each with ReLU and 2x2 pooling, and a hidden layer of 100.

    Args:
        image_size: Height and width of the (square) images.
        channels: Channels of the images.
        n_classes: Number of logits.
    """

    __getitem__ = layers_at

    def __init__(self, image_size: int = 28, channels: int = 1, n_classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (image_size // 4) ** 2, 100),
            nn.ReLU(),
            nn.Linear(100, n_classes),
        )


class LeNet(nn.Sequential):
    """LeNet-5 (LeCun et al., 1998) with ReLU and max pooling.

    Args:
        image_size: Height and width of the (square) images, 28 or 32 (28 is padded to 32, as in the paper).
        channels: Channels of the images.
        n_classes: Number of logits.

    Raises:
        ValueError: ``image_size`` is neither.
    """

    __getitem__ = layers_at

    def __init__(self, image_size: int = 28, channels: int = 1, n_classes: int = 10) -> None:
        if image_size not in (28, 32):
            raise ValueError(f"LeNet takes images of 28 or 32 pixels, not {image_size}: use MLP or CNN.")
        super().__init__(
            nn.Conv2d(channels, 6, 5, padding=(32 - image_size) // 2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, n_classes),
        )


class ResNet18(nn.Sequential):
    """ResNet-18 (He et al., CVPR 2016) for 32x32 images: a 3x3 stem without pooling, 11.2 M parameters.

    Args:
        channels: Channels of the images.
        n_classes: Number of logits.
        width: Channels of the first stage (64 in the paper; 20 is usual in continual learning).
    """

    __getitem__ = layers_at

    def __init__(self, channels: int = 3, n_classes: int = 10, width: int = 64) -> None:
        stages = [
            nn.Sequential(_Block(a * width, b * width, stride), _Block(b * width, b * width, 1))
            for a, b, stride in ((1, 1, 1), (1, 2, 2), (2, 4, 2), (4, 8, 2))
        ]
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *stages,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, n_classes),
        )


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))
