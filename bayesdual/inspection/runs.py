"""What a run has left: its results, memory and posterior, from a run directory, finished or not, or a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import torch
import yaml

from bayesdual import __version__
from bayesdual.configuration import flatten, in_use
from bayesdual.files import refusing_other_content
from bayesdual.inspection.tables import score_of
from bayesdual.learner import History
from bayesdual.measures import Matrix
from bayesdual.memory import Memory, MemoryMap
from bayesdual.posterior import Posterior

NEEDED = ("nll", "forgetting", "experiences_learned", *(f"seconds_{of}" for of in ("total", "training", "evaluation")))
MAPS = "memory_maps"  # a folder in a run directory


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        name: What it is called.
        results: As ``results.json`` has them; of a run that goes on, those so far.
        memory: Its memory, if it has one that can be looked at.
        posterior: Of its weights, if there is one.
        settings: Its configuration, by dotted key; empty if that is not known.
        maps: Its memory maps, by the number of the experience, from 1; those that there are.
    """

    name: str
    results: dict[str, Any]
    memory: Memory | None
    posterior: Posterior | None
    settings: dict[str, Any]
    maps: dict[int, MemoryMap]

    @property
    def matrix(self) -> Matrix:
        """Of the score, a row after each experience."""
        return self.results[f"{score_of(self.results).key}_matrix"]


def read_run(path: str | Path) -> Run:
    """Reads a run directory or a checkpoint; nothing in it is executed.

    Raises:
        ValueError: There is neither, nothing has been learned yet, or a file is damaged.
    """
    with refusing_other_content(path, "run's"):
        return _read(Path(path))


def _read(path: Path) -> Run:
    if path.is_file():
        return _from_checkpoint(path, path.parent.parent / "config.yaml", path.stem)
    results, last = path / "results.json", path / "checkpoints" / "last.ckpt"
    if last.is_file() and (not results.is_file() or _goes_on(path, results, last)):
        return _from_checkpoint(last, path / "config.yaml", path.name)
    if not results.is_file():
        if (path / "config.yaml").is_file():
            raise ValueError(f"{path}: no epoch has been learned yet, or the run was stopped before; look again later.")
        raise ValueError(
            f"{path} is no run directory: it has neither results.json nor checkpoints/last.ckpt; give one of runs/, or "
            "a checkpoint."
        )
    try:
        values = json.loads(results.read_text())
        key = f"{score_of(values).key}_matrix"
        values[key][0][0]
        values[key] = [[nan if a is None else a for a in row] for row in values[key]]
        if missing := [name for name in NEEDED if name not in values]:
            version = (values.get("versions") or {}).get("bayesdual", "unknown")
            raise ValueError(
                f"{results} is of another version of bayesdual ({version}; this is {__version__}): it has no "
                f"{missing[0]}; delete it, to read checkpoints/last.ckpt."
            )
    except (KeyError, TypeError, IndexError, AttributeError, json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(
            f"{results} is damaged, or of another program: delete it, to read checkpoints/last.ckpt."
        ) from None
    memory, posterior = path / "memory.safetensors", path / "posterior.safetensors"
    return Run(
        path.name,
        values,
        Memory.load(memory) if memory.is_file() else None,
        Posterior.load(posterior) if posterior.is_file() else None,
        _settings(path / "config.yaml"),
        _maps(path / MAPS),
    )


def _goes_on(path: Path, results: Path, last: Path) -> bool:
    """Whether a run learns on after it had come to results."""
    return last.stat().st_mtime > results.stat().st_mtime and in_use(path)


def _from_checkpoint(path: Path, config: Path, name: str) -> Run:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["bayesdual"]
        history, algorithm = state["history"], state["algorithm"]
    except Exception:  # whatever a damaged file makes of it
        raise ValueError(f"{path} is not a checkpoint of bayesdual, or is damaged: give another one.") from None
    known = History()
    known.load_state_dict(history)
    if not known.accuracy:
        raise ValueError(f"{path}: no experience has been learned yet; look again later.")
    kept = algorithm["memory"]
    memory = Memory(kept["budget"] if "max_bytes" not in kept else 0, kept.get("max_bytes"))
    memory.load_state_dict(kept)
    posterior = algorithm.get("posterior")
    results = {
        **known.results(),
        "experiences_learned": len(known.accuracy),
        "memory_size": len(memory),
        "memory_budget": memory.budget,
        "memory_bytes": memory.bytes_by_part(),
    }
    found = None if posterior is None else Posterior.from_state_dict(posterior)
    maps = {k: mapped for k, mapped in _maps(config.parent / MAPS).items() if k <= len(known.accuracy)}
    return Run(name, results, memory if len(memory) else None, found, _settings(config), maps)


def _maps(folder: Path) -> dict[int, MemoryMap]:
    paths = {int(path.stem.rpartition("_")[2]): path for path in folder.glob("experience_[0-9]*.safetensors")}
    return {k: MemoryMap.load(paths[k]) for k in sorted(paths)}


def _settings(config: Path) -> dict[str, Any]:
    """A configuration by dotted key, without where it writes to."""
    if not config.is_file():
        return {}
    try:
        values = yaml.safe_load(config.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{config} is damaged ({str(error).splitlines()[0]}): delete it.") from None
    return dict(flatten(values)) if isinstance(values, dict) else {}
