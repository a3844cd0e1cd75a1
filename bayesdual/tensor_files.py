"""Named tensors in a safetensors file, with a checksum over all of it: whole, and undamaged, or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bayesdual.files import write_whole

CHECKSUM = "sha256"  # its key in the header


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Writes tensors of any device to a file.

    Args:
        path: The file; one that is there is replaced.
        tensors: By name.
        header: What else is to be known.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    marked = {**header, CHECKSUM: checksum(held, header)}
    write_whole(path, lambda temporary: save_file(held, temporary, marked))


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads what :func:`write_tensors` wrote, or a file of before there was a checksum; executes nothing from it.

    Args:
        path: The file.
        kind: What it should be, for an error: "memory", say.

    Returns:
        The tensors, and the header.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no file of tensors, or is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a {kind} file, or is damaged ({error}).") from None
    wanted = header.pop(CHECKSUM, None)
    if wanted is not None and wanted != checksum(tensors, header):
        raise ValueError(f"{path} is damaged: its content is not what its checksum says; take a copy of it.")
    return tensors, header


def checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of tensors on the CPU, their names, types and shapes, and of a header."""
    digest = hashlib.sha256(repr(sorted(header.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
