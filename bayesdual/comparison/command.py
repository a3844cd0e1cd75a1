"""``python -m bayesdual compare``: methods x seeds x benchmarks, ours and baselines, tuned by the same budget.

What is compared stands in a configuration file, as below. A run is known by its settings and a digest of the code that
makes it, your own modules included, so a run is made once, whatever stops the comparison, and another setting or other
code makes another run. What other code made stays in ``runs.jsonl`` and is left aside. First come the runs on the
validation stream that choose what a method tunes, for each benchmark apart; then every seed learns all training data.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console

from bayesdual import sources
from bayesdual.comparison import plan
from bayesdual.comparison.cells import at_edge, cell_of, choose, tuning_cells
from bayesdual.comparison.executors import Executor, Failure, LocalProcesses
from bayesdual.comparison.plan import Comparison, read_comparison
from bayesdual.comparison.ray import RayCluster
from bayesdual.comparison.report import Block, blocks_of, comma_separated, comparison_figure, markdown, terminal_tables
from bayesdual.comparison.statistics import Entry, rows_of
from bayesdual.comparison.store import Cell, Store, counted, made_by
from bayesdual.configuration import CommandLineError, read_config, sole_use
from bayesdual.files import write_json, write_whole

DIVERGED = "FloatingPointError"
Tuning = Mapping[tuple[str, str], list[tuple[dict[str, Any], list[Cell]]]]
"""By benchmark and method, the settings to choose among, each with its cells."""


def learn_cell(cell: Cell) -> dict[str, Any]:
    """Makes a run; in a process that does nothing else.

    Raises:
        RuntimeError: The code here is not that which the run is known by.
    """
    be_quiet()
    torch.set_num_threads(cell.spec["threads"])
    if (here := sources.digest(*cell.names)) != cell.code:
        raise RuntimeError(
            f"the code where the run is made ({here[: sources.SHORT]}) is not what it was when the comparison began "
            f"({cell.code[: sources.SHORT]}): have the same code everywhere, and start again."
        )
    return cell.learn(**cell.spec["arguments"])


def be_quiet() -> None:
    """Silences what Lightning and Avalanche say of every run."""
    warnings.simplefilter("ignore")
    logging.captureWarnings(True)  # Avalanche brings warnings back that were filtered
    for name in ("lightning.pytorch", "lightning.fabric", "py.warnings"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def execute(what: str, cells: Iterable[Cell], store: Store, executor: Executor, console: Console) -> None:
    """Makes the runs that are not there, and says of each how it went and how long the rest will take.

    Args:
        what: What the runs are for.
        cells: The runs; one that stands there twice is made once.
        store: Where they go.
        executor: What makes them.
        console: Where to say so.

    Raises:
        RunError: A run failed otherwise than by diverging. Those that were running are finished and kept.
    """
    by_name = {cell.name: cell for cell in cells}
    missing = [cell for cell in by_name.values() if cell not in store]
    console.print(f"{what}: {counted(len(by_name))}, {len(by_name) - len(missing)} of them there already")
    failures: list[tuple[Cell, Failure]] = []
    started, width = time.perf_counter(), len(str(len(missing)))
    supply = (cell for cell in missing if not failures)
    for done, (cell, outcome, where) in enumerate(executor(learn_cell, supply), 1):
        if isinstance(outcome, Failure) and outcome.kind != DIVERGED:
            failures.append((cell, outcome))
            continue
        if isinstance(outcome, Failure):
            store.keep(cell, None, diverged=outcome.sentence, made_by=where)
            said = "diverged"
        else:
            store.keep(cell, outcome, made_by=where)
            said = f"accuracy {outcome['average_accuracy']:.4f} in {outcome['seconds_total']:.0f} s"
        left = (time.perf_counter() - started) / done * (len(missing) - done)
        ahead = f"; about {duration(left)} to go" if done < len(missing) else ""
        console.print(f"{what} {done:{width}d}/{len(missing)}  {cell.title}: {said}{ahead}", soft_wrap=True)
    if failures:
        cell, failure = failures[0]
        raise RunError(f"{cell.title}: {failure.sentence.rstrip('.')}") from RemoteError(failure.traceback)


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


def entries_of(comparison: Comparison, store: Store, chosen: Mapping[tuple[str, str], dict]) -> list[Entry]:
    """The results of all runs of a comparison that was made."""
    entries = []
    for benchmark, method in comparison.pairs:
        tried = chosen[benchmark.name, method.name]
        runs = {s: store[cell_of(comparison, benchmark, method, tried, s, False)] for s in comparison.seeds}
        entries.append(
            Entry(
                benchmark=benchmark.name,
                method=method.name,
                role=comparison.role(method),
                settings=tried,
                at_edge=at_edge(method, tried),
                tried=len(method.grid) if len(method.grid) > 1 else 0,
                results={seed: run.results for seed, run in runs.items()},
                code=made_by(runs.values()),
            )
        )
    return entries


def write_report(comparison: Comparison, entries: Sequence[Entry]) -> list[Block]:
    """Writes ``table.md``, ``table.csv``, ``results.json`` and ``figure.png``; returns the tables."""
    rows = rows_of(entries)
    blocks = blocks_of(rows)
    runs = [
        {"benchmark": e.benchmark, "method": e.method, "seed": s, "settings": e.settings, "code": e.code, "results": r}
        for e in entries
        for s, r in e.results.items()
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
        description=f"{__doc__}\n{plan.__doc__}",
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


def main(argv: list[str]) -> None:
    """Runs ``compare``.

    Args:
        argv: The command line, without the word ``compare``; configuration files of it are there.

    Raises:
        CommandLineError: The command line or the configuration says something that cannot be.
        RunError: A run failed.
    """
    args = parse(argv)
    comparison = read_comparison(args.config, args.folder)
    store = Store(comparison.folder / "runs.jsonl")
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 100)
    tuning = {(b.name, m.name): tuning_cells(comparison, b, m) for b, m in comparison.pairs}
    tuning_list = [cell for tried in tuning.values() for _, cells in tried for cell in cells]
    # Refuses what does not fit together before anything is learned.
    examples = [cell_of(comparison, b, m, m.grid[0], comparison.seeds[0], False) for b, m in comparison.pairs]
    for sentence in (store.left_aside([*tuning_list, *examples]), files_of_before(comparison.folder)):
        if sentence is not None:
            console.print(sentence, soft_wrap=True)
    if args.dry_run:
        return dry_run(comparison, store, tuning, console)
    with _in_folder(comparison.folder):
        executor: Executor = RayCluster(args.ray) if args.ray else LocalProcesses(args.workers or cores())
        if tuning_list:
            execute("tuning", tuning_list, store, executor, console)
        chosen = chosen_settings(comparison, store, tuning)
        cells = [
            cell_of(comparison, b, m, chosen[b.name, m.name], seed, False)
            for seed in comparison.seeds
            for b, m in comparison.pairs
        ]
        execute("comparing", cells, store, executor, console)
        console.print()
        for part in terminal_tables(write_report(comparison, entries_of(comparison, store, chosen))):
            console.print(part)
    console.print(f"written to {comparison.folder}: table.md, table.csv, results.json, figure.png, runs.jsonl")


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Keeps other comparisons out of a folder; what cannot be written there is said of ``--folder``."""
    busy = f"another comparison is writing to {folder}: wait for it, or give another --folder."
    with ExitStack() as held:
        try:
            held.enter_context(sole_use(folder, busy))
        except OSError as error:
            raise CommandLineError(
                f"{folder} cannot be written to ({error.strerror}): give another --folder."
            ) from None
        yield


def files_of_before(folder: Path) -> str | None:
    """Says in one sentence that runs of before 0.2.0, a file each, are not read; None: there are none."""
    files = list((folder / "runs").glob("*.json"))
    if not files:
        return None
    return f"left aside, and kept in {folder / 'runs'}: {counted(len(files))} of before 0.2.0, when none said its code."


def chosen_settings(comparison: Comparison, store: Store, tuning: Tuning) -> dict[tuple[str, str], dict[str, Any]]:
    """What each method takes on each benchmark, once the tuning runs are there."""
    chosen = {}
    for benchmark, method in comparison.pairs:
        tried = tuning[benchmark.name, method.name]
        results = [(settings, [store[cell].results for cell in cells]) for settings, cells in tried]
        chosen[benchmark.name, method.name] = choose(results) if results else method.grid[0]
    return chosen


def dry_run(comparison: Comparison, store: Store, tuning: Tuning, console: Console) -> None:
    """Lists the runs that are not there; those that depend on tuning that was not done by their number."""
    missing: dict[str, Cell] = {}
    waiting = 0
    for benchmark, method in comparison.pairs:
        tried = tuning[benchmark.name, method.name]
        todo = [cell for _, cells in tried for cell in cells if cell not in store]
        missing |= {cell.name: cell for cell in todo}
        if todo:
            waiting += len(comparison.seeds)
            continue
        results = [(settings, [store[cell].results for cell in cells]) for settings, cells in tried]
        chosen = choose(results) if results else method.grid[0]
        cells = [cell_of(comparison, benchmark, method, chosen, seed, False) for seed in comparison.seeds]
        missing |= {cell.name: cell for cell in cells if cell not in store}
    for cell in missing.values():
        console.print(cell.title)
    after = f", and then {waiting} with what was chosen" if waiting else ""
    console.print(f"{counted(len(missing))} to make{after}")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
