"""``python -m bayesdual compare``: methods x seeds x benchmarks, ours and peers, tuned by the same budget.

What is compared stands in a configuration file, as ``bayesdual.comparison`` says. A run is known by its settings and
the version of bayesdual: its file in ``runs/`` is named by a hash of these, so a run is made once, whatever stops the
comparison, and another setting makes another run. (Code of your own that you change is not seen: delete its runs.)
First come the runs on the validation stream that choose what a method tunes, for each benchmark apart; then every seed
learns all training data.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console

import bayesdual.comparison
from bayesdual import comparison_report as report
from bayesdual.comparison import Benchmark, Comparison, Method, read_comparison
from bayesdual.configuration import resolve
from bayesdual.executors import Executor, Failure, LocalProcesses, RayCluster
from bayesdual.files import write_json, write_whole
from bayesdual.settings import CommandLineError, Setting, read_config

OURS = "bayesdual.configuration.learn"
DIVERGED = "FloatingPointError"


# ----------------------------------------------------------------------- from what is compared to runs


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


# ----------------------------------------------------------------------- runs on disk


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


# ----------------------------------------------------------------------- making them


def make(run: Run) -> dict[str, Any]:
    """Makes a run; in a process that does nothing else."""
    be_quiet()
    torch.set_num_threads(run.spec["threads"])
    module, _, name = run.spec["learn"].rpartition(".")
    return getattr(import_module(module), name)(**run.spec["arguments"])


def be_quiet() -> None:
    """Silences what Lightning and Avalanche say of every run."""
    warnings.simplefilter("ignore")
    logging.captureWarnings(True)  # Avalanche brings warnings back that were filtered
    for name in ("lightning.pytorch", "lightning.fabric", "py.warnings"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def execute(what: str, runs: Iterable[Run], made: Runs, executor: Executor, console: Console) -> None:
    """Makes the runs that are not there, and says of each how it went and how long the rest will take.

    Args:
        what: What the runs are for.
        runs: The runs; one that stands there twice is made once.
        made: Where they go.
        executor: What makes them.
        console: Where to say so.

    Raises:
        RunError: A run failed otherwise than by diverging. Those that were running are finished and kept.
    """
    by_name = {run.name: run for run in runs}
    missing = [run for run in by_name.values() if run not in made]
    console.print(f"{what}: {len(by_name)} runs, {len(by_name) - len(missing)} of them there already")
    failures: list[tuple[Run, Failure]] = []
    started, width = time.perf_counter(), len(str(len(missing)))
    supply = (run for run in missing if not failures)
    for done, (run, outcome, where) in enumerate(executor(make, supply), 1):
        if isinstance(outcome, Failure) and outcome.kind != DIVERGED:
            failures.append((run, outcome))
            continue
        if isinstance(outcome, Failure):
            made.write(run, None, diverged=outcome.sentence, made_by=where)
            said = "diverged"
        else:
            made.write(run, outcome, made_by=where)
            said = f"accuracy {outcome['average_accuracy']:.4f} in {outcome['seconds_total']:.0f} s"
        left = (time.perf_counter() - started) / done * (len(missing) - done)
        ahead = f"; about {duration(left)} to go" if done < len(missing) else ""
        console.print(f"{what} {done:{width}d}/{len(missing)}  {run.title}: {said}{ahead}", soft_wrap=True)
    if failures:
        run, failure = failures[0]
        raise RunError(f"{run.title}: {failure.sentence.rstrip('.')}") from RemoteError(failure.traceback)


class RunError(ValueError):
    """A run failed."""


class RemoteError(Exception):
    """Where it did, in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def entries_of(comparison: Comparison, made: Runs, chosen: Mapping[tuple[str, str], dict]) -> list[report.Entry]:
    """The results of all runs of a comparison that was made."""
    entries = []
    for benchmark, method in comparison.cells:
        tried = chosen[benchmark.name, method.name]
        runs = {s: run_of(comparison, benchmark, method, tried, s, False) for s in comparison.seeds}
        entries.append(
            report.Entry(
                benchmark=benchmark.name,
                method=method.name,
                role=comparison.role(method),
                settings=tried,
                at_edge=at_edge(method, tried),
                tried=len(method.grid) if len(method.grid) > 1 else 0,
                results={seed: made.results(run) for seed, run in runs.items()},
            )
        )
    return entries


def write_report(comparison: Comparison, entries: Sequence[report.Entry]) -> list[report.Block]:
    """Writes ``table.md``, ``table.csv``, ``results.json`` and ``figure.png``; returns the tables."""
    rows = report.rows_of(entries)
    blocks = report.blocks_of(rows)
    runs = [
        {"benchmark": e.benchmark, "method": e.method, "seed": seed, "settings": e.settings, "results": results}
        for e in entries
        for seed, results in e.results.items()
    ]
    folder, figure = comparison.folder, report.comparison_figure(entries)
    write_json(folder / "results.json", {"comparison": read_config(comparison.source), "rows": rows, "runs": runs})
    write_whole(folder / "table.md", lambda path: path.write_text(report.markdown(blocks)))
    write_whole(folder / "table.csv", lambda path: path.write_text(report.comma_separated(rows)))
    write_whole(folder / "figure.png", lambda path: figure.savefig(path, dpi=120))
    return blocks


# ----------------------------------------------------------------------- the command


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line, without the word ``compare``."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise CommandLineError(f"compare: {message}; --help shows what there is.")

    parser = Parser(
        prog="python -m bayesdual compare",
        description=f"{__doc__}\n{bayesdual.comparison.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="what to compare, as above")
    parser.add_argument("--folder", help="where to write to, instead of what the file says")
    parser.add_argument("--workers", type=int, metavar="N", help="processes at a time; by default one for each core")
    parser.add_argument("--ray", metavar="ADDRESS", help="make the runs on a Ray cluster: HOST:PORT, or auto")
    parser.add_argument("--dry_run", action="store_true", help="list the runs that are not there, and make none")
    args = parser.parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise CommandLineError(f"--workers is {args.workers}: give at least 1.")
    if args.workers is not None and args.ray is not None:
        raise CommandLineError("--workers is for this machine, --ray takes all processors of the cluster: give one.")
    return args


def run(argv: list[str]) -> None:
    """Runs ``compare``.

    Args:
        argv: The command line, without the word ``compare``; configuration files of it are there.

    Raises:
        CommandLineError: The command line or the configuration says something that cannot be.
        RunError: A run failed.
    """
    args = parse(argv)
    comparison = read_comparison(args.config, args.folder)
    made = Runs(comparison.folder / "runs")
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 100)
    tuning = {(b.name, m.name): tuning_runs(comparison, b, m) for b, m in comparison.cells}
    tuning_list = [run for tried in tuning.values() for _, runs in tried for run in runs]
    for benchmark, method in comparison.cells:  # complains before anything is learned
        run_of(comparison, benchmark, method, method.grid[0], comparison.seeds[0], False)
    if args.dry_run:
        return dry_run(comparison, made, tuning, console)
    with sole_use(comparison.folder):
        executor: Executor = RayCluster(args.ray) if args.ray else LocalProcesses(args.workers or cores())
        if tuning_list:
            execute("tuning", tuning_list, made, executor, console)
        chosen = chosen_settings(comparison, made, tuning)
        runs = [
            run_of(comparison, b, m, chosen[b.name, m.name], seed, False)
            for seed in comparison.seeds
            for b, m in comparison.cells
        ]
        execute("comparing", runs, made, executor, console)
        console.print()
        for part in report.terminal_tables(write_report(comparison, entries_of(comparison, made, chosen))):
            console.print(part)
    console.print(f"written to {comparison.folder}: table.md, table.csv, results.json, figure.png, runs/")


def chosen_settings(
    comparison: Comparison, made: Runs, tuning: Mapping[tuple[str, str], list]
) -> dict[tuple[str, str], dict[str, Any]]:
    """What each method takes on each benchmark, once the tuning runs are there."""
    chosen = {}
    for benchmark, method in comparison.cells:
        tried = tuning[benchmark.name, method.name]
        results = [(settings, [made.results(run) for run in runs]) for settings, runs in tried]
        chosen[benchmark.name, method.name] = choose(results) if results else method.grid[0]
    return chosen


def dry_run(comparison: Comparison, made: Runs, tuning: Mapping[tuple[str, str], list], console: Console) -> None:
    """Lists the runs that are not there; those that depend on tuning that was not done by their number."""
    missing: dict[str, Run] = {}
    waiting = 0
    for benchmark, method in comparison.cells:
        tried = tuning[benchmark.name, method.name]
        todo = [run for _, runs in tried for run in runs if run not in made]
        missing |= {run.name: run for run in todo}
        if todo:
            waiting += len(comparison.seeds)
            continue
        results = [(settings, [made.results(run) for run in runs]) for settings, runs in tried]
        chosen = choose(results) if results else method.grid[0]
        runs = [run_of(comparison, benchmark, method, chosen, seed, False) for seed in comparison.seeds]
        missing |= {run.name: run for run in runs if run not in made}
    for run in missing.values():
        console.print(run.title)
    console.print(f"{len(missing)} runs to make" + (f", and then {waiting} with what was chosen" if waiting else ""))


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
