"""A memory in bytes: all that is carried from one experience to the next beside the network and its optimizer.

    inputs     images in uint8 by the cosine codec, where that is smaller; vectors of many numbers in four bits a
               number (``levels.py``); other floating inputs in half precision; tokens, which have no mean, in the
               smallest type of integers that holds them
    labels     labels, task labels and experiences, which stand in runs and take next to nothing
    weights    what each exemplar stands for, in half precision
    spread     a variance for each coefficient, in bfloat16; of vectors of many numbers some directions as well
    counts     the examples seen, by class and experience

Soft labels, and a prior of the weights that is measured on the memory, follow from these and the network as it is, so
they are not carried. Neither are scores and positions in the source dataset, which only people look at.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bayesdual.memory.codec import CosineCodec, is_codable
from bayesdual.memory.exemplars import Exemplars
from bayesdual.memory.levels import decode_vectors, encode_vectors

STEP = 50.0  # of the codec, in grey levels: between 40 and 60, finer steps and more exemplars are worth the same
UNKNOWN = -1
DAMAGED = "the packed memory is damaged: take another checkpoint or memory file."
_DTYPES = (torch.uint8, torch.float16, torch.int16, torch.int32, torch.int64)
_INTEGERS = _DTYPES[2:]
_CODED = 255  # in place of a type
_TOKENS = 254
_LEVELS = 253
MANY = 64  # numbers of a vector from which on it is coded

Packed = dict[str, bytes]
"""The parts above, by name."""


def pack(z: Exemplars, counts: Mapping[tuple[int, int], int], step: float = STEP) -> Packed:
    """Exemplars in few bytes.

    Args:
        z: At least one; their soft labels, scores and positions are left out.
        counts: Examples seen, by class and experience.
        step: Of the codec.

    Returns:
        ``inputs``, ``labels``, ``weights`` and ``counts``.
    """
    labels = torch.stack([z.y, z.tasks, z.experience]).cpu().to(torch.int32).numpy().astype("<i4")
    return {
        "inputs": _packed_inputs(z.x.cpu(), z.y, z.weights, step),
        "labels": zlib.compress(labels.view(np.uint8).reshape(-1, 4).T.tobytes(), 9),
        "weights": zlib.compress(z.weights.cpu().half().numpy().astype("<f2").tobytes(), 9),
        "counts": zlib.compress(json.dumps([[*key, n] for key, n in sorted(counts.items())]).encode(), 9),
    }


def unpack(packed: Mapping[str, bytes]) -> tuple[Exemplars, dict[tuple[int, int], int]]:
    """What :func:`pack` was given, as it comes back: inputs decoded, without soft labels (C = 0).

    Raises:
        ValueError: The parts are damaged.
    """
    try:
        planes = np.frombuffer(zlib.decompress(packed["labels"]), np.uint8).reshape(4, -1)
        labels = np.ascontiguousarray(planes.T).view("<i4").astype(np.int64).reshape(3, -1)
        y, tasks, experience = torch.from_numpy(labels)
        weights = torch.from_numpy(np.frombuffer(zlib.decompress(packed["weights"]), "<f2").astype(np.float32))
        counts = {(c, e): n for c, e, n in json.loads(zlib.decompress(packed["counts"]))}
        x = _unpacked_inputs(packed["inputs"], y)
    except (KeyError, struct.error, zlib.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(DAMAGED) from error
    if not len(x) == len(y) == len(weights):
        raise ValueError(DAMAGED)
    unknown = torch.full_like(y, UNKNOWN)
    return Exemplars(x, y, tasks, torch.zeros(len(y), 0), weights, torch.zeros(len(y)), experience, unknown), counts


def size_of(packed: Mapping[str, bytes]) -> dict[str, int]:
    """Bytes of each part."""
    return {name: len(part) for name, part in packed.items()}


def are_features(x: Tensor) -> bool:
    """Whether inputs are vectors of many numbers, shape (N, D), as features are."""
    return x.is_floating_point() and x.dim() == 2 and x.shape[1] >= MANY


def _packed_inputs(x: Tensor, y: Tensor, weights: Tensor, step: float) -> bytes:
    if are_features(x):
        return struct.pack("<B", _LEVELS) + encode_vectors(x)
    x = x.half() if x.is_floating_point() else x
    if x.dtype in _INTEGERS:
        return _packed_tokens(x)
    head = struct.pack(f"<BB{x.dim()}I", _DTYPES.index(x.dtype), x.dim(), *x.shape)
    if is_codable(x) and len(coded := CosineCodec(step).encode(x, y, weights)) < x.nbytes:
        return struct.pack("<B", _CODED) + coded
    return head + zlib.compress(x.contiguous().numpy().tobytes(), 6)


def _unpacked_inputs(packed: bytes, y: Tensor) -> Tensor:
    if packed[0] == _CODED:
        return CosineCodec.decode(packed[1:], y)
    if packed[0] == _TOKENS:
        return _unpacked_tokens(packed)
    if packed[0] == _LEVELS:
        return decode_vectors(packed[1:])
    kind, dim = struct.unpack_from("<BB", packed)
    shape = struct.unpack_from(f"<{dim}I", packed, 2)
    data = bytearray(zlib.decompress(packed[2 + 4 * dim :]))
    x = torch.frombuffer(data, dtype=_DTYPES[kind]).view(shape)
    return x.float() if x.is_floating_point() else x


def _packed_tokens(x: Tensor) -> bytes:
    low, high = (int(value) for value in x.aminmax()) if x.numel() else (0, 0)
    kind = next(t for t in _INTEGERS if torch.iinfo(t).min <= low and high <= torch.iinfo(t).max)
    head = struct.pack(f"<BBBB{x.dim()}I", _TOKENS, _DTYPES.index(kind), _DTYPES.index(x.dtype), x.dim(), *x.shape)
    return head + zlib.compress(x.to(kind).contiguous().numpy().tobytes(), 9)


def _unpacked_tokens(packed: bytes) -> Tensor:
    _, kind, given, dim = struct.unpack_from("<BBBB", packed)
    shape = struct.unpack_from(f"<{dim}I", packed, 4)
    data = bytearray(zlib.decompress(packed[4 + 4 * dim :]))
    return torch.frombuffer(data, dtype=_DTYPES[kind]).view(shape).to(_DTYPES[given])
