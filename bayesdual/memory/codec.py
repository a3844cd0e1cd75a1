"""Images in few bytes: a cosine transform, coarse steps, and an entropy coder.

With D the orthonormal cosine matrix, x a channel (H, W) of an image of class k and weight w, and s and u steps,

    c   = D_H x D_W^T                                       coefficients, by frequency
    q   = sign(c - b_k) floor(|c - b_k| / s + 1/2 - dead)   coarse steps from the mean of the class; most are 0
    b_k : multiples of u < s, such that the weighted mean of what is decoded is that of the class
    x'  = clip(round(D_H^T (b_k + s q) D_W), 0, 255)

What is lost are small deviations at high frequencies; what a class is on the average is kept, as a memory that stands
for it needs. The basis is the same for all data and is not kept. Each frequency has a table of how often it takes each
value, and asymmetric numeral systems write the values in as many bits as the entropy of these tables says: at s = 40 a
memory vector of Fashion-MNIST takes about 80 bytes instead of 784.

Sources: Ahmed, Natarajan & Rao, "Discrete cosine transform", IEEE Trans. Computers 1974; Wallace, "The JPEG still
picture compression standard", 1992 (transform, dead zone; here on the whole image instead of blocks); Duda, "Asymmetric
numeral systems", arXiv 1311.2540 (by the library constriction).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

DEAD = 0.15  # share of a step by which the zone around zero is wider
FINE = 8.0  # u
BATCH = 500  # images that stay in the processor's cache
ROUNDS = 3  # of b, at most: rounding and clipping shift the mean a little
DAMAGED = "the coded inputs of a memory are damaged: take another checkpoint or memory file."
_HEADER = struct.Struct("<IHHHfIII")  # images, channels, height, width, step, bytes of b and of all, checksum

Array = np.ndarray


class CosineCodec:
    """Codes uint8 images with the transform above.

    Args:
        step: s, in grey levels of a coefficient of the orthonormal transform.

    Raises:
        ValueError: ``step`` is not positive.
    """

    def __init__(self, step: float) -> None:
        if not step > 0:
            raise ValueError(f"the step of a CosineCodec is {step}: give a positive number of grey levels.")
        self.step = step

    def encode(self, x: Tensor, y: Tensor, weights: Tensor) -> bytes:
        """Images to bytes.

        Args:
            x: Shape (N, C, H, W), uint8, N at least 1.
            y: Their classes, shape (N,).
            weights: How much each counts in the mean of its class, shape (N,), positive.

        Raises:
            ValueError: ``x`` is no such tensor.
        """
        if not is_codable(x):
            raise ValueError(
                f"inputs of type {x.dtype} and shape {tuple(x.shape)} are no images in uint8, which a codec needs: "
                "keep them as they are."
            )
        c = _transformed(x.cpu())
        place = y.cpu().unique(return_inverse=True)[1]
        share = (
            weights.cpu().to(c) / torch.zeros(int(place.max()) + 1).index_add_(0, place, weights.cpu().float())[place]
        )
        means = _fine(_sums(c, share, place))
        q = self._steps(c - FINE * means[place])
        for _ in range(ROUNDS):
            seen = _transformed(self._images(q, means, place, x.shape))
            missing = _fine(_sums(c - seen, share, place))
            if not missing.any():
                break
            means = means + missing
        base = _packed(means.to(torch.int32).view(1, -1).numpy())
        body = base + _packed(q.T.to(torch.int32).contiguous().numpy())
        return _HEADER.pack(*x.shape, self.step, len(base), len(body), zlib.crc32(body)) + body

    @staticmethod
    def decode(code: bytes, y: Tensor) -> Tensor:
        """Images (N, C, H, W), uint8, from what :meth:`encode` gave, with whatever step.

        Args:
            code: The bytes.
            y: The classes of the images, shape (N,).

        Raises:
            ValueError: The bytes are not such a code, or are damaged.
        """
        if len(code) < _HEADER.size:
            raise ValueError(DAMAGED)
        n, channels, height, width, step, size, whole, checksum = _HEADER.unpack_from(code)
        body = code[_HEADER.size :]
        if len(body) != whole or zlib.crc32(body) != checksum or n != len(y):
            raise ValueError(DAMAGED)
        place = y.cpu().unique(return_inverse=True)[1]
        numbers, classes = channels * height * width, int(place.max()) + 1
        means = _unpacked(body[:size], 1, classes * numbers).view(classes, numbers)
        return CosineCodec(step)._images(
            _unpacked(body[size:], numbers, n).T, means, place, (n, channels, height, width)
        )

    def _images(self, q: Tensor, means: Tensor, place: Tensor, shape: Sequence[int]) -> Tensor:
        images = []
        for some, of in zip(q.split(BATCH), place.split(BATCH), strict=True):
            c = self.step * some + FINE * means[of]
            images.append(pixels(c.view(-1, *shape[1:])).round_().clamp_(0, 255).to(torch.uint8))
        return torch.cat(images)

    def _steps(self, c: Tensor) -> Tensor:
        return c.sign() * (c.abs() / self.step + (0.5 - DEAD)).floor()


def is_codable(x: Tensor) -> bool:
    """Whether inputs are images in uint8, of shape (N, C, H, W)."""
    return x.dtype == torch.uint8 and x.dim() == 4


def _transformed(x: Tensor) -> Tensor:
    return torch.cat([coefficients(some.float()).flatten(1) for some in x.split(BATCH)])


def coefficients(x: Tensor) -> Tensor:
    """The cosine transform of channels (..., H, W), floating."""
    return cosines(x.shape[-2]).to(x) @ x @ cosines(x.shape[-1]).to(x).T


def pixels(c: Tensor) -> Tensor:
    """The inverse of :func:`coefficients`."""
    return cosines(c.shape[-2]).to(c).T @ c @ cosines(c.shape[-1]).to(c)


@lru_cache(maxsize=8)
def cosines(size: int) -> Tensor:
    """The orthonormal matrix of the discrete cosine transform (type II), shape (size, size): each row a frequency."""
    frequency, place = torch.arange(size)[:, None], torch.arange(size)[None]
    matrix = torch.cos(math.pi * (2 * place + 1) * frequency / (2 * size)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _sums(c: Tensor, share: Tensor, place: Tensor) -> Tensor:
    return torch.zeros(int(place.max()) + 1, c.shape[1]).index_add_(0, place, c * share[:, None])


def _fine(means: Tensor) -> Tensor:
    return (means / FINE).round()


# -- whole numbers to bytes and back: each row by the table of its own values


def _packed(values: Array) -> bytes:
    """Whole numbers, shape (K, N), to bytes."""
    rows = np.flatnonzero(values.any(axis=1))
    lows = values[rows].min(axis=1)
    counts = [np.bincount(values[row] - low) for row, low in zip(rows, lows, strict=True)]
    coder = _streams().stack.AnsCoder()
    for row, low, count in zip(rows[::-1], lows[::-1], counts[::-1], strict=True):  # a stack: the last comes out first
        coder.encode_reverse(values[row] - low, _model(count))
    tables = _packed_tables(rows, lows, counts)
    return struct.pack("<I", len(tables)) + tables + coder.get_compressed().astype("<u4").tobytes()


def _unpacked(packed: bytes, n_rows: int, n: int) -> Tensor:
    """What :func:`_packed` was given, shape (n_rows, n), float32."""
    (size,) = struct.unpack_from("<I", packed)
    rows, lows, counts = _unpacked_tables(packed[4 : 4 + size])
    coder = _streams().stack.AnsCoder(np.frombuffer(packed[4 + size :], "<u4").astype(np.uint32))
    values = np.zeros((n_rows, n), np.float32)
    for row, low, count in zip(rows, lows, counts, strict=True):
        values[row] = coder.decode(_model(count), n) + low
    return torch.from_numpy(values)


def _model(count: Array) -> Any:
    """The distribution of a row: its table, with a place for a second value where there is but one."""
    count = np.append(count, 1) if len(count) == 1 else count
    return _streams().model.Categorical((count / count.sum()).astype(np.float32), perfect=False)


def _streams() -> Any:
    """The entropy coders of constriction, imported late: who keeps exemplars as they are needs none."""
    import constriction

    return cast(Any, constriction).stream


def _packed_tables(rows: Array, lows: Array, counts: Sequence[Array]) -> bytes:
    sizes = np.array([len(count) for count in counts])
    numbers = np.concatenate([[len(rows)], np.diff(rows, prepend=0), lows, sizes, *counts]).astype("<i4")
    planes = numbers.view(np.uint8).reshape(-1, 4).T  # the high bytes of small numbers are all alike
    return zlib.compress(planes.tobytes(), 9)


def _unpacked_tables(packed: bytes) -> tuple[Array, Array, list[Array]]:
    planes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(4, -1)
    numbers = np.ascontiguousarray(planes.T).view("<i4").ravel().astype(np.int64)
    k = int(numbers[0])
    rows, lows, sizes = numbers[1 : k + 1].cumsum(), numbers[k + 1 : 2 * k + 1], numbers[2 * k + 1 : 3 * k + 1]
    return rows, lows, np.split(numbers[3 * k + 1 :], sizes.cumsum()[:-1]) if k else []
