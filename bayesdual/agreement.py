"""Whether all processes of a run hold the same, by a hash of it that each tells the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class ProcessesDiffer(ValueError):
    """Processes that should hold the same do not; each of them raises it."""


def digest_of(value: Any) -> str:
    """A hash of nested tensors and plain values, to the bit: 32 hexadecimal digits."""
    content = hashlib.blake2b(digest_size=16)
    for part in _bytes_of(value):
        content.update(part)
    return content.hexdigest()


def refuse_differing(parts: Mapping[str, Any], advice: str) -> None:
    """Compares what each process holds with what the first one does; to be called by all of them.

    Args:
        parts: What should be the same everywhere, by what it is called: nested tensors and plain values.
        advice: The end of the sentence: what to do.

    Raises:
        ProcessesDiffer: It is not.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    mine = {name: digest_of(part) for name, part in parts.items()}
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    for name, digest in everyones[0].items():
        others = [str(rank) for rank, theirs in enumerate(everyones) if theirs[name] != digest]
        if others:
            raise ProcessesDiffer(f"{name} of process {', '.join(others)} is not that of process 0: {advice}")


def _bytes_of(value: Any) -> Iterator[bytes]:
    """What a value is, unmistakably: every part says of what kind and how long it is."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
        yield flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}".encode()
        for key in sorted(value, key=repr):
            yield from _bytes_of(key)
            yield from _bytes_of(value[key])
    elif isinstance(value, list | tuple):
        yield f"list {len(value)}".encode()
        for part in value:
            yield from _bytes_of(part)
    else:
        text = repr(value).encode()
        yield f"{type(value).__name__} {len(text)} ".encode() + text
