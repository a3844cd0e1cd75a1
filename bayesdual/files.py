"""Files that are there whole or not at all: written under a temporary name, synced to the disk, and renamed."""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Has ``write`` write a temporary file beside ``path`` (with the same suffix) and renames it to ``path``.

    Args:
        path: The file; one that is there is replaced, or stays as it is if ``write`` fails.
        write: Writes the file whose path it is given.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        with open(temporary, "r+b") as file:  # else the name may be on the disk before the content is
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def is_damaged(path: str | Path) -> bool:
    """Whether a file that is a zip archive, as PyTorch's are, has content that its checksums (CRC-32) contradict.

    Whether a file of another kind is damaged cannot be known: no.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except zipfile.BadZipFile:
        return zipfile.is_zipfile(path)
    except (RuntimeError, NotImplementedError, ValueError, EOFError):  # of archives whose own tables are damaged
        return True


def remove_left_over(folder: str | Path) -> None:
    """Takes away what processes that were killed in :func:`write_whole` left half-written in a folder."""
    for path in Path(folder).glob(".*"):
        if re.fullmatch(r"\..+\.\d+(\.\w+)?", path.name):
            path.unlink(missing_ok=True)


@contextmanager
def refusing_other_content(path: str | Path, kind: str) -> Iterator[None]:
    """Has what a file holds that is not what its kind does be refused in one sentence, whatever comes of it.

    Args:
        path: The file.
        kind: What it should be, for the error: "memory", say.

    Raises:
        ValueError: Something was raised inside that says nothing of the file.
    """
    try:
        yield
    except (TypeError, LookupError, AttributeError, RuntimeError, OverflowError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a {kind} file, or is damaged ({type(error).__name__}: {reason}).") from error


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file; a number that is NaN, which JSON does not have, is null in it."""
    write_whole(path, lambda p: p.write_text(json.dumps(_without_nan(value), indent=2) + "\n"))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def append_line(path: str | Path, line: str) -> None:
    """Appends a line to a file, in one piece, and syncs it to the disk; lines that are there are never touched.

    A process that is killed meanwhile may leave the beginning of a line, which the next line does not become part of.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        begun = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * begun + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder last; systems that cannot open folders do without."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
