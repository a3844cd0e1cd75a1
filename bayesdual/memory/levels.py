"""Vectors in few bits a number: evenly spaced levels, times a scale for each vector.

    q = clip(floor(x / s), -2^(b-1), 2^(b-1) - 1),      x' = (q + 1/2) s

with b bits a number, and s in half precision: of some between the one at which the largest number of x has the largest
level and a quarter of that, the one with the least squared error. The largest numbers may thus be cut short, so that
the many small ones have finer levels. What is decoded is coded without a further loss.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BITS = 4
WIDTHS = (1, 2, 4, 8)
SHARES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)  # of the largest scale
DAMAGED = "the coded vectors of a memory are damaged: take another checkpoint or memory file."
_HEADER = struct.Struct("<BIII")  # bits, vectors, numbers of each, checksum


def encode_vectors(x: Tensor, bits: int = BITS) -> bytes:
    """Vectors to bytes.

    Args:
        x: Shape (N, D), floating, finite.
        bits: Of a number: 1, 2, 4 or 8.

    Raises:
        ValueError: They are others.
    """
    if bits not in WIDTHS:
        raise ValueError(f"bits is {bits}: give 1, 2, 4 or 8, of which a byte holds whole numbers.")
    x = x.detach().cpu().float()
    highest = 2 ** (bits - 1)
    scale = x.abs().amax(1, keepdim=True) / (highest - 0.5)
    best, least = torch.zeros_like(scale), torch.full_like(scale, torch.inf)
    for share in SHARES:
        s = (scale * share).half().float()
        error = (_levels(_steps(x, s, highest), s) - x).square().sum(1, keepdim=True)
        best, least = torch.where(error < least, s, best), torch.minimum(error, least)
    q = (_steps(x, best, highest) + highest).to(torch.uint8).numpy()
    body = best.half().numpy().astype("<f2").tobytes() + _packed(q, bits)
    return _HEADER.pack(bits, *x.shape, zlib.crc32(body)) + body


def decode_vectors(code: bytes) -> Tensor:
    """Vectors (N, D), float32, from what :func:`encode_vectors` gave.

    Raises:
        ValueError: The bytes are not such a code, or are damaged.
    """
    if len(code) < _HEADER.size:
        raise ValueError(DAMAGED)
    bits, n, d, checksum = _HEADER.unpack_from(code)
    body = code[_HEADER.size :]
    if bits not in WIDTHS or len(body) != 2 * n + -(-n * d * bits // 8) or zlib.crc32(body) != checksum:
        raise ValueError(DAMAGED)
    scale = torch.from_numpy(np.frombuffer(body, "<f2", n).astype(np.float32))[:, None]
    q = torch.from_numpy(_unpacked(np.frombuffer(body, np.uint8, offset=2 * n), bits)[: n * d].astype(np.float32))
    return _levels(q.view(n, d) - 2 ** (bits - 1), scale)


def bytes_of_vectors(shape: Sequence[int], bits: int = BITS) -> int:
    """Bytes of vectors of a shape (N, D)."""
    n, d = shape
    return _HEADER.size + 2 * n + -(-n * d * bits // 8)


def _steps(x: Tensor, scale: Tensor, highest: int) -> Tensor:
    return (x / scale.clamp_min(1e-12)).floor().clamp(-highest, highest - 1)


def _levels(q: Tensor, scale: Tensor) -> Tensor:
    return (q + 0.5) * scale


def _packed(q: np.ndarray, bits: int) -> bytes:
    """Whole numbers below 2^bits, several in a byte, the first in its highest bits."""
    each = 8 // bits
    flat = np.concatenate([q.ravel(), np.zeros(-q.size % each, np.uint8)]).reshape(-1, each)
    shifts = np.arange(each - 1, -1, -1, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(flat << shifts, axis=1).astype(np.uint8).tobytes()


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    each = 8 // bits
    shifts = np.arange(each - 1, -1, -1, dtype=np.uint8) * bits
    return ((packed[:, None] >> shifts) & (2**bits - 1)).ravel()
