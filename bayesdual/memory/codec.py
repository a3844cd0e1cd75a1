"""Images in few bytes: a cosine transform, coarse steps, and an entropy coder. What is lost is what no network looks at.

With D the orthonormal cosine matrix, x a channel of an image (H, W), and s the step,

    c = D_H (x - 128) D_W^T,     q = sign(c) floor(|c| / s + 1/2 - dead),     x' = clip(round(D_H^T (s q) D_W + 128), 0, 255)

Images, and means of images, have most of their energy in few low frequencies, so that most q are 0. The basis is the same
for all data and is not kept. Each frequency has a table of how often it takes each value over the images, and asymmetric
numeral systems write the values in as many bits as the entropy of these tables says: at s = 100 an image of Fashion-MNIST
takes about 50 bytes instead of 784.

Sources: Ahmed, Natarajan & Rao, "Discrete cosine transform", IEEE Trans. Computers 1974; Wallace, "The JPEG still
picture compression standard", 1992 (transform, dead zone; here on the whole image instead of blocks); Duda, "Asymmetric
numeral systems", arXiv 1311.2540 (by the library constriction).
"""

from __future__ import annotations

import math
import struct
import zlib
from functools import lru_cache
from typing import Protocol

import constriction
import numpy as np
import torch
from torch import Tensor

DEAD = 0.15  # share of a step by which the zone around zero is wider
CENTRE = 128
PIECE = 4096  # images that are transformed at a time
AnsCoder = constriction.stream.stack.AnsCoder
Categorical = constriction.stream.model.Categorical
_HEADER = struct.Struct("<IHHHfII")  # images, channels, height, width, step, bytes of the tables, checksum


class Codec(Protocol):
    """Inputs to bytes and back. What comes back need not be the same, but has its shape and type."""

    def encode(self, x: Tensor) -> bytes: ...

    def decode(self, code: bytes) -> Tensor: ...


class CosineCodec:
    """Codes uint8 images with the transform above.

    Args:
        step: s, in grey levels: the squared error of a pixel is at most about s^2 / 12, and less where most q are 0.

    Raises:
        ValueError: ``step`` is not positive.
    """

    def __init__(self, step: float) -> None:
        if not step > 0:
            raise ValueError(f"the step of a CosineCodec is {step}: give a positive number of grey levels.")
        self.step = step

    def encode(self, x: Tensor) -> bytes:
        """Images (N, C, H, W), uint8, to bytes.

        Raises:
            ValueError: ``x`` is no such tensor.
        """
        if not is_codable(x):
            raise ValueError(
                f"inputs of type {x.dtype} and shape {tuple(x.shape)} are no images in uint8, which a codec needs: "
                "keep them as they are."
            )
        parts = [self._quantised(part) for part in x.cpu().split(PIECE)]
        values = torch.cat(parts).flatten(1).T.to(torch.int32).contiguous().numpy()  # (frequencies, N)
        rows = np.flatnonzero(values.any(axis=1))
        lows = values[rows].min(axis=1)
        counts = [np.bincount(values[row] - low) for row, low in zip(rows, lows, strict=True)]
        coder = AnsCoder()
        for row, low, count in zip(rows[::-1], lows[::-1], counts[::-1], strict=True):  # a stack: the last comes out first
            coder.encode_reverse(values[row] - low, _model(count))
        tables = _packed_tables(rows, lows, counts)
        body = tables + coder.get_compressed().astype("<u4").tobytes()
        return _HEADER.pack(*x.shape, self.step, len(tables), zlib.crc32(body)) + body

    @staticmethod
    def decode(code: bytes) -> Tensor:
        """Images (N, C, H, W), uint8, from what :meth:`encode` gave, with whatever step.

        Raises:
            ValueError: The bytes are not such a code, or are damaged.
        """
        try:
            n, channels, height, width, step, size, checksum = _HEADER.unpack_from(code)
        except struct.error:
            checksum = None
        body = code[_HEADER.size :]
        if checksum != zlib.crc32(body):
            raise ValueError("the coded inputs of a memory are damaged: take another checkpoint or memory file.")
        rows, lows, counts = _unpacked_tables(body[:size])
        coder = AnsCoder(np.frombuffer(body[size:], "<u4").astype(np.uint32))
        values = np.zeros((channels * height * width, n), np.float32)
        for row, low, count in zip(rows, lows, counts, strict=True):
            values[row] = coder.decode(_model(count), n) + low
        quantised = torch.from_numpy(values).T.reshape(n, channels, height, width)
        return torch.cat([_pixels(part * step) for part in quantised.split(PIECE)])

    def _quantised(self, x: Tensor) -> Tensor:
        rows, columns = cosines(x.shape[-2]), cosines(x.shape[-1])
        c = rows @ (x.float() - CENTRE) @ columns.T
        return c.sign() * (c.abs() / self.step + (0.5 - DEAD)).floor()


def is_codable(x: Tensor) -> bool:
    """Whether inputs are images in uint8, of shape (N, C, H, W)."""
    return x.dtype == torch.uint8 and x.dim() == 4


@lru_cache(maxsize=8)
def cosines(size: int) -> Tensor:
    """The orthonormal matrix of the discrete cosine transform (type II), shape (size, size), a frequency in each row."""
    frequency, place = torch.arange(size)[:, None], torch.arange(size)[None]
    matrix = torch.cos(math.pi * (2 * place + 1) * frequency / (2 * size)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _pixels(c: Tensor) -> Tensor:
    rows, columns = cosines(c.shape[-2]), cosines(c.shape[-1])
    return (rows.T @ c @ columns + CENTRE).round().clamp(0, 255).to(torch.uint8)


def _model(count: np.ndarray) -> Categorical:
    """The distribution of one frequency: its table, with a place for a second value where there is but one."""
    count = np.append(count, 1) if len(count) == 1 else count
    return Categorical((count / count.sum()).astype(np.float32), perfect=False)


def _packed_tables(rows: np.ndarray, lows: np.ndarray, counts: list[np.ndarray]) -> bytes:
    sizes = np.array([len(count) for count in counts])
    numbers = np.concatenate([np.diff(rows, prepend=0), lows, sizes, *counts]).astype("<i4")
    planes = numbers.view(np.uint8).reshape(-1, 4).T  # the high bytes of small numbers are all 0
    return struct.pack("<I", len(rows)) + zlib.compress(planes.tobytes(), 9)


def _unpacked_tables(packed: bytes) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    (k,) = struct.unpack_from("<I", packed)
    planes = np.frombuffer(zlib.decompress(packed[4:]), np.uint8).reshape(4, -1)
    numbers = np.ascontiguousarray(planes.T).view("<i4").ravel().astype(np.int64)
    rows, lows, sizes = numbers[:k].cumsum(), numbers[k : 2 * k], numbers[2 * k : 3 * k]
    return rows, lows, np.split(numbers[3 * k :], sizes.cumsum()[:-1]) if k else []
