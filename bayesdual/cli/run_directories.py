"""Run directories and the checkpoints in them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bayesdual.configuration import CommandLineError, read_config
from bayesdual.files import is_damaged

RUNS = Path("runs")
FLAGS = r"(-(memory|seed)_\d+(_bytes)?)*"  # in the name of a run, see name_of_run
CHECKPOINTS = "checkpoints"
FREE = (
    "threads",
    "data.workers",
    "data.evaluate_every",
    "checkpoint.every_n_steps",
    "checkpoint.every_n_minutes",
    "checkpoint.keep",
)  # settings that a run may go on with others of


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
    """The newest run directory of a name that has a checkpoint; else of those of another memory or seed.

    Raises:
        CommandLineError: There is none.
    """
    plain = re.sub(f"{FLAGS}$", "", name)
    alike = [path for path in RUNS.glob(f"{plain}-*") if re.fullmatch(rf"{re.escape(plain)}{FLAGS}-\d+", path.name)]
    for path in (*reversed(runs_named(name)), *sorted(alike, key=lambda p: -p.stat().st_mtime)):
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
    if not is_whole(path):
        raise CommandLineError(
            f"--ckpt_path {path} is not a checkpoint, or is damaged: give another one of the checkpoints/ of a run."
        )


def is_whole(path: Path) -> bool:
    """Whether a file is a checkpoint, and undamaged."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        by_lightning = isinstance(content, dict) and isinstance(content.get("pytorch-lightning_version"), str)
        return by_lightning and not is_damaged(path)
    except Exception:  # whatever a damaged file makes of it
        return False


def newest_whole(folder: Path) -> Path:
    """The checkpoint to go on from; one that is damaged is passed over, and said to be.

    Args:
        folder: Where the checkpoints of a run are.

    Raises:
        CommandLineError: There is none that is whole.
    """
    last = folder / "last.ckpt"
    earlier = sorted(folder.glob("experience_*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    taken = next((path for path in (last, *earlier) if path.is_file() and is_whole(path)), None)
    if taken is None and not last.is_file():
        raise CommandLineError(f"--ckpt_path {last}: there is no such file.")
    if taken is None:
        raise CommandLineError(f"--ckpt_path last: all checkpoints in {folder} are damaged: start the run again.")
    if taken != last:
        state = "damaged" if last.is_file() else "not there"
        print(f"bayesdual: {last} is {state}: {taken} is taken in its place.", file=sys.stderr)
    return taken


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> dict[str, tuple[Any, Any]]:
    """The settings that both name and that differ, by dotted key: what they were, and what they are."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in before.keys() & now.keys():
        old, new = before[key], now[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed |= changed_settings(old, new, f"{above}{key}.")
        elif old != new:
            changed[f"{above}{key}"] = old, new
    return dict(sorted(changed.items()))


def check_resumed(checkpoint: Path, settings: Mapping[str, Any]) -> None:
    """Compares the settings of a run that goes on with those it had, and says what is other.

    Args:
        checkpoint: Of a run; where no ``config.yaml`` lies beside its folder, there is nothing to compare with.
        settings: Those of now, every default spelled out.

    Raises:
        CommandLineError: One is other that the checkpoint decides, so that it would have no effect, or half of one.
    """
    path = checkpoint.parent.parent / "config.yaml"
    if not path.is_file():
        return
    changed = changed_settings(read_config(str(path)), settings)
    free = {key: values for key, values in changed.items() if key.startswith("trainer.") or key in FREE}
    changed.pop("run_dir", None)
    if fixed := [key for key in changed if key not in free]:
        old, new = changed[fixed[0]]
        raise CommandLineError(
            f"{fixed[0]} was {old} in the run that goes on ({path}), and is {new} now: give what it was, or start "
            "a new run."
        )
    for key, (old, new) in free.items():
        print(f"going on with {key} {new}, which was {old}")
