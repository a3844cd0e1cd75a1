"""Run directories and the checkpoints in them."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from bayesdual.configuration import CommandLineError

RUNS = Path("runs")
CHECKPOINTS = "checkpoints"


def runs_named(name: str) -> list[Path]:
    """The run directories that were named after a configuration, the oldest first."""
    found = [p for p in RUNS.glob(f"{name}-*") if re.fullmatch(rf"{re.escape(name)}-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def new_run(name: str) -> Path:
    """The next run directory of a name."""
    existing = runs_named(name)
    number = int(existing[-1].name.rpartition("-")[2]) + 1 if existing else 1
    return RUNS / f"{name}-{number}"


def latest_run(name: str) -> Path:
    """The newest run directory of a name that has a checkpoint.

    Raises:
        CommandLineError: There is none.
    """
    for path in reversed(runs_named(name)):
        if (path / CHECKPOINTS / "last.ckpt").exists():
            return path
    raise CommandLineError(
        f"--ckpt_path last: no run of this configuration with a checkpoint in {RUNS}/{name}-*; give --run_dir."
    )


def make_directory(path: Path) -> bool:
    """Makes a directory that can be written to; returns whether it was not there before.

    Raises:
        CommandLineError: It cannot.
    """
    new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = "it is a file" if path.is_file() else error.strerror
        raise CommandLineError(f"--run_dir {path} cannot be written to ({reason}): give another folder.") from None
    return new


def check_checkpoint(path: Path) -> None:
    """Makes sure a checkpoint can be read.

    Raises:
        CommandLineError: It is not there, or not a checkpoint.
    """
    if not path.is_file():
        raise CommandLineError(f"--ckpt_path {path}: there is no such file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
            raise ValueError
    except Exception:  # whatever a damaged file makes of it
        raise CommandLineError(
            f"--ckpt_path {path} is not a checkpoint, or is damaged: give another one of the checkpoints/ of a run."
        ) from None
