"""Where the files of a dataset are found, and how they are read.

A missing or damaged file is one sentence. Reading a file never executes code: the pickles in which CIFAR is distributed
are read by an unpickler that knows nothing but NumPy arrays.
"""

from __future__ import annotations

import http.client
import io
import math
import os
import pickle
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer from a server


# ---- Where they are ----------------------------------------------------------------------------------------


def find(
    dataset: str, names: Sequence[str], folders: Sequence[Path], download: Callable[[], None], advice: str
) -> dict[str, Path]:
    """Returns where each file is; if no folder has them all, they are downloaded, once.

    Args:
        dataset: What people call the dataset.
        names: The files wanted, without the ending ``.gz`` that they may have.
        folders: Where to look, in this order; all files are taken from one folder.
        download: Puts the files into one of the folders.
        advice: What people can do where all of this fails.

    Raises:
        FileNotFoundError: A file is still missing, with the reason why the download failed.
    """
    found, missing = _look(names, folders)
    if not missing:
        return found
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT):
            download()
        failure = "the download brought something else"
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        failure = f"the download failed ({reason[-1]})"
    found, missing = _look(names, folders)
    if missing:
        raise FileNotFoundError(
            f"{dataset}: no {', '.join(missing)} in {' or '.join(map(str, folders))}, and {failure}: "
            f"{advice}, or name the right root."
        )
    return found


def _look(names: Sequence[str], folders: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Returns the files of the first folder that has them all, or the names that the fullest one lacks."""
    best: dict[str, Path] = {}
    for folder in folders:
        found = {
            name: path
            for name in names
            for path in (folder / f"{name}.gz", folder / name)  # the plain file, if there are both
            if path.is_file()
        }
        if len(found) == len(names):
            return found, []
        best = max(best, found, key=len)
    return best, [name for name in names if name not in best]


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its connections without a time limit; this gives it one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def download(dataset_class: str, root: Path, folder: Path, names: Sequence[str]) -> None:
    """Has torchvision download and verify a dataset, then moves its files to ``root / folder``.

    It works in a folder of its own, so that a download that is cut off leaves nothing behind which looks
    like data.
    """
    import torchvision.datasets

    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as scratch:
        getattr(torchvision.datasets, dataset_class)(scratch, download=True)
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(Path(scratch) / folder / name, root / folder / name)


# ---- How they are read -------------------------------------------------------------------------------------


def read_idx(path: Path, n_dims: int) -> Tensor:
    """Reads a file of bytes in the idx format of MNIST, gzipped if its name ends in ``.gz``.

    The format: two zero bytes, the type (8: uint8), the number of dimensions, each dimension as a big-endian
    32-bit integer, then the numbers (http://yann.lecun.com/exdb/mnist).

    Args:
        path: The file.
        n_dims: How many dimensions the array must have.

    Returns:
        The array, uint8.

    Raises:
        ValueError: The file is truncated, damaged, or not in this format.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = zlib.decompress(data, wbits=31)  # 31: with gzip's header and checksum
        except zlib.error as error:
            raise damaged(path, str(error)) from None
    header = 4 + 4 * n_dims
    if len(data) < header or data[:4] != bytes([0, 0, 8, n_dims]):
        raise damaged(path, f"it does not begin like an idx file of bytes in {n_dims} dimension(s)")
    shape = struct.unpack_from(f">{n_dims}I", data, 4)
    if len(data) - header != math.prod(shape):
        raise damaged(path, f"its header promises {math.prod(shape)} bytes, {len(data) - header} follow")
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape).copy())


class _PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, text and NumPy arrays, and refuses everything else."""

    _reconstruct = np.empty(0).__reduce__()[0]  # NumPy's constructor of an array, without its private name
    _known = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 1, as CIFAR was written
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data") from None


def read_plain_pickle(path: Path) -> dict[str, Any]:
    """Reads a pickled dict of arrays, numbers and text; nothing in the file is executed.

    Raises:
        ValueError: The file is truncated, damaged, or holds anything else.
    """
    try:
        content = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError:
        raise
    except Exception as error:  # the bytes of a damaged pickle can raise nearly anything
        raise damaged(path, str(error) or type(error).__name__) from None
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, not a dict")
    return content


def damaged(path: Path, why: str) -> ValueError:
    """What to raise for a file that cannot be read."""
    why = " ".join(why.split())
    return ValueError(f"{path} is truncated or damaged ({why}): replace it, or remove it to download it again.")
