"""A folder that one process at a time writes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bayesdual.configuration.arguments import CommandLineError


@contextmanager
def sole_use(folder: Path, refusal: str) -> Iterator[None]:
    """Keeps other processes that ask out of a folder, by the system's lock on a file ``.lock`` in it.

    The system lifts the lock however this process ends; the file goes with it, and is left, empty, by a process that is
    killed. A file system without locks keeps nobody out.

    Args:
        folder: Made if it is not there.
        refusal: What is said where another process has it.

    Raises:
        CommandLineError: Another process has it.
        OSError: It cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise CommandLineError(refusal) from None
    except NotImplementedError:  # filelock's word for a file system without locks
        pass
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            (folder / ".lock").unlink()
        lock.release()


def in_use(folder: Path) -> bool:
    """Whether a process has a folder to itself; on a file system without locks nobody has."""
    if not (folder / ".lock").is_file():
        return False
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return False
    lock.release()  # left by a process that was killed
    return False
