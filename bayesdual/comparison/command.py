"""``python -m bayesdual compare``: methods x seeds x benchmarks, ours and peers, tuned by the same budget.

What is compared stands in a configuration file, as ``bayesdual.comparison`` says. A run is known by its settings and
the version of bayesdual: its file in ``runs/`` is named by a hash of these, so a run is made once, whatever stops the
comparison, and another setting makes another run. (Code of your own that you change is not seen: delete its runs.)
First come the runs on the validation stream that choose what a method tunes, for each benchmark apart; then every seed
learns all training data.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import torch
from rich.console import Console

import bayesdual.comparison
from bayesdual.comparison.executors import Executor, Failure, LocalProcesses
from bayesdual.comparison.plan import Comparison, read_comparison
from bayesdual.comparison.ray import RayCluster
from bayesdual.comparison.report import Block, blocks_of, comma_separated, comparison_figure, markdown, terminal_tables
from bayesdual.comparison.runs import Run, Runs, at_edge, choose, run_of, sole_use, tuning_runs
from bayesdual.comparison.statistics import Entry, rows_of
from bayesdual.configuration import CommandLineError, read_config
from bayesdual.files import write_json, write_whole

DIVERGED = "FloatingPointError"


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


def entries_of(comparison: Comparison, made: Runs, chosen: Mapping[tuple[str, str], dict]) -> list[Entry]:
    """The results of all runs of a comparison that was made."""
    entries = []
    for benchmark, method in comparison.cells:
        tried = chosen[benchmark.name, method.name]
        runs = {s: run_of(comparison, benchmark, method, tried, s, False) for s in comparison.seeds}
        entries.append(
            Entry(
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


def write_report(comparison: Comparison, entries: Sequence[Entry]) -> list[Block]:
    """Writes ``table.md``, ``table.csv``, ``results.json`` and ``figure.png``; returns the tables."""
    rows = rows_of(entries)
    blocks = blocks_of(rows)
    runs = [
        {"benchmark": e.benchmark, "method": e.method, "seed": seed, "settings": e.settings, "results": results}
        for e in entries
        for seed, results in e.results.items()
    ]
    folder, figure = comparison.folder, comparison_figure(entries)
    write_json(folder / "results.json", {"comparison": read_config(comparison.source), "rows": rows, "runs": runs})
    write_whole(folder / "table.md", lambda path: path.write_text(markdown(blocks)))
    write_whole(folder / "table.csv", lambda path: path.write_text(comma_separated(rows)))
    write_whole(folder / "figure.png", lambda path: figure.savefig(path, dpi=120))
    return blocks


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
        for part in terminal_tables(write_report(comparison, entries_of(comparison, made, chosen))):
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
