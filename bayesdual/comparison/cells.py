"""From what is compared to its runs, and the runs that are kept on disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bayesdual.comparison.plan import Benchmark, Comparison, Method
from bayesdual.configuration import CommandLineError, Setting, resolve
from bayesdual.files import write_json

OURS = "bayesdual.comparison.learn"


@dataclass(frozen=True)
class Run:
    """One run: ``spec`` is what its results depend on, as plain values; ``title`` is for people."""

    title: str
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:16]


def run_of(
    comparison: Comparison, benchmark: Benchmark, method: Method, tried: Mapping[str, Any], seed: int, tuning: bool
) -> Run:
    """The run of a method on a benchmark.

    Args:
        comparison: What is compared.
        benchmark: The benchmark.
        method: The method.
        tried: Values of the settings that the method tunes.
        seed: Seed of all that is random.
        tuning: Whether to learn without the validation part, and evaluate on it; else on the test stream.

    Raises:
        CommandLineError: The settings do not fit together.
    """
    of_benchmark = _settings(benchmark.settings, f"{comparison.source}: benchmarks.{benchmark.name}.set")
    shared: dict[str, Any] = {"seed_everything": seed}
    if tuning:
        shared |= {"data.benchmark.init_args.validation": comparison.validation, "data.evaluate_on": "valid"}
    of_all = _settings(shared, f"{comparison.source}: tuning" if tuning else comparison.source)
    values = {**method.settings, **tried}
    if method.peer is None:
        of_method = _settings(values, f"{comparison.source}: methods.{method.name}")
        config = resolve(benchmark.config, *of_benchmark, *method.overlay, *of_method, *of_all)
        spec: dict[str, Any] = {"learn": OURS, "arguments": {"config": config}}
    else:
        config = resolve(benchmark.config, *of_benchmark, *of_all)
        try:
            arguments = comparison.peers.plan(method.peer, config, values)
        except ValueError as error:
            raise CommandLineError(f"{comparison.source}: methods.{method.name}: {error}") from None
        spec = {"learn": f"{comparison.peers.__name__}.learn", "arguments": arguments}
    spec |= {"version": version("bayesdual"), "threads": config["threads"] or 1}
    title = [f"{method.name} on {benchmark.name}", *(f"{k.rpartition('.')[2]} {v}" for k, v in tried.items())]
    return Run(", ".join([*title, f"seed {seed}", *(["tuning"] if tuning else [])]), spec)


def _settings(values: Mapping[str, Any], source: str) -> list[Setting]:
    return [Setting(key, value, source) for key, value in values.items()]


def tuning_runs(comparison: Comparison, benchmark: Benchmark, method: Method) -> list[tuple[dict[str, Any], list[Run]]]:
    """What a method may choose among on a benchmark, each with the runs that show how good it is there."""
    grid = method.grid if len(method.grid) > 1 else []
    return [
        (tried, [run_of(comparison, benchmark, method, tried, s, True) for s in comparison.tuning_seeds])
        for tried in grid
    ]


def choose(results: Sequence[tuple[dict[str, Any], list[dict[str, Any] | None]]]) -> dict[str, Any]:
    """The settings of the highest mean accuracy on the validation stream; of equals the first.

    Args:
        results: The settings tried, each with the results of its runs: None for one that diverged, which loses.
    """

    def worth(tried: tuple[dict[str, Any], list[dict[str, Any] | None]]) -> float:
        runs = tried[1]
        return statistics.mean(r["average_accuracy"] for r in runs if r) if all(runs) else float("-inf")

    return max(results, key=worth)[0]


def at_edge(method: Method, chosen: Mapping[str, Any]) -> bool:
    """Whether a number that was chosen is the smallest or largest of those tried."""
    for key, values in method.tune.items():
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numbers and len(values) > 1 and chosen[key] in (min(values), max(values)):
            return True
    return False


class Runs:
    """The runs of a comparison that were made: a file each, named by a hash of what the run depends on.

    Args:
        folder: Where they are; it is made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, run: Run) -> bool:
        return self._path(run).exists()

    def results(self, run: Run) -> dict[str, Any] | None:
        """The results of a run that was made, or None if it diverged.

        Raises:
            CommandLineError: The file is damaged.
        """
        try:
            return json.loads(self._path(run).read_text())["results"]
        except (ValueError, KeyError, TypeError):
            raise CommandLineError(f"{self._path(run)} is damaged: delete it, and the run is made again.") from None

    def write(self, run: Run, results: dict[str, Any] | None, **more: Any) -> None:
        """Keeps what a run gave; None if it diverged."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(run), {"title": run.title, "spec": run.spec, "results": results, **more})

    def _path(self, run: Run) -> Path:
        return self.folder / f"{run.name}.json"


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Keeps other comparisons out of a folder; the system lifts the lock of one that was killed.

    Raises:
        CommandLineError: Another one writes there, or nobody can.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115, it is open as long as the lock is held
    except OSError as error:
        raise CommandLineError(f"{folder} cannot be written to ({error.strerror}): give another --folder.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandLineError(
                f"another comparison is writing to {folder}: wait for it, or give another --folder."
            ) from None
        yield
