"""``python -m bayesdual compare``: methods x seeds x benchmarks, ours and peers, tuned by the same budget.

A comparison is a configuration file::

    folder: comparisons/digits           # where it writes to; or --folder
    seeds: [0, 1, 2]
    tuning: {seeds: [0], validation: 0.1}  # share of the training data on which settings are chosen
    peers: bayesdual.strategies.peers    # the module that plans and learns what a method names as its peer
    benchmarks:                          # a configuration of fit, and settings changed in it by dotted key
      memory 50: {config: split_digits.yaml, set: {model.algorithm.init_args.memory_size: 50}}
    methods:
      bayesdual: {tune: {model.optimizer.init_args.lr_factor: [1.0, 0.5, 1.5]}}
      replay: {overlay: methods/replay.yaml, set: {model.lr_end: 1.0}}
      DER++: {peer: DER++, set: {replay_batch_size: 64}, tune: {lr: [1e-3, 3e-4, 1e-4]}}

A run is known by all that it depends on: its file in ``runs/`` is named by a hash of that, so a run is made once,
whatever stops the comparison, and another setting makes another run. First come the runs on the validation stream that
choose what a method tunes, for each benchmark apart; then every seed learns all training data.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import itertools
import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console

from bayesdual import comparison_report as report
from bayesdual.configuration import resolve
from bayesdual.executors import Executor, Failure, LocalProcesses, RayCluster
from bayesdual.files import write_json, write_whole
from bayesdual.settings import CommandLineError, Setting, find_configs, read_config

FORMAT = 1  # of the files of runs: another one makes all runs again
OURS = "bayesdual.configuration.learn"
DIVERGED = "FloatingPointError"


# ----------------------------------------------------------------------- what is compared


@dataclass(frozen=True)
class Benchmark:
    """A column of the comparison: a configuration file that is there, and settings changed in it."""

    name: str
    config: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes:
        name: What it is called.
        peer: Which peer it is; None: it is ours.
        overlay: Configuration files laid over the benchmark's, for a method of ours.
        settings: Settings changed; for a peer, its own.
        tune: Values to choose among, by setting.
        benchmarks: The benchmarks it is for; empty: all.
    """

    name: str
    peer: str | None = None
    overlay: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, list[Any]] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()

    @property
    def grid(self) -> list[dict[str, Any]]:
        """All combinations of the values to choose among; one, empty, if there are none."""
        return [dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())]


@dataclass(frozen=True)
class Comparison:
    """What a configuration file of ``compare`` says; see the module."""

    source: str
    folder: Path
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    validation: float
    benchmarks: tuple[Benchmark, ...]
    methods: tuple[Method, ...]
    ours: str | None
    peers: Any

    @property
    def cells(self) -> list[tuple[Benchmark, Method]]:
        """Each benchmark with each of its methods."""
        return [(b, m) for b in self.benchmarks for m in self.methods if not m.benchmarks or b.name in m.benchmarks]

    def role(self, method: Method) -> str:
        """See :class:`bayesdual.comparison_report.Entry`."""
        if method.peer is not None:
            return self.peers.bound(method.peer) or report.PEER
        return report.OURS if method.name == self.ours else report.OWN


@dataclass(frozen=True)
class Run:
    """One run: ``spec`` is all that its results depend on, as plain values; ``title`` is for people."""

    title: str
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:16]


def read_comparison(path: str, folder: str | None = None) -> Comparison:
    """Reads the configuration of a comparison.

    Args:
        path: The file.
        folder: Where to write to, instead of what the file says.

    Raises:
        CommandLineError: Something in it cannot be.
    """
    content = read_config(path)
    _check_keys(content, ("folder", "seeds", "tuning", "peers", "benchmarks", "methods", "ours"), path, "")
    tuning = _mapping(content, "tuning", path)
    _check_keys(tuning, ("seeds", "validation"), path, "tuning")
    validation = tuning.get("validation", 0.1)
    if not isinstance(validation, int | float) or not 0 < validation < 1:
        _refuse(path, "tuning.validation", f"is {validation!r}: give a share of the training data, such as 0.1")
    folder = folder or content.get("folder")
    if not isinstance(folder, str):
        _refuse(path, "folder", "is missing: say where to write, there or by --folder")
    benchmarks = tuple(_benchmark(path, name, spec) for name, spec in _entries(content, "benchmarks", path))
    methods = tuple(
        _method(path, name, spec, [b.name for b in benchmarks]) for name, spec in _entries(content, "methods", path)
    )
    own = [method.name for method in methods if method.peer is None]
    ours = content.get("ours", own[0] if own else None)
    if "ours" in content and ours not in own:
        _refuse(path, "ours", f"is {ours!r}, which is no method without a peer; there are {', '.join(own) or 'none'}")
    return Comparison(
        source=path,
        folder=Path(folder),
        seeds=_seeds(content.get("seeds", [0, 1, 2]), path, "seeds"),
        tuning_seeds=_seeds(tuning.get("seeds", [0]), path, "tuning.seeds"),
        validation=validation,
        benchmarks=benchmarks,
        methods=methods,
        ours=ours,
        peers=_peers(content.get("peers"), methods, path),
    )


def _benchmark(path: str, name: str, spec: Any) -> Benchmark:
    key = f"benchmarks.{name}"
    spec = {"config": spec} if isinstance(spec, str) else spec
    if not isinstance(spec, dict) or not isinstance(spec.get("config"), str):
        _refuse(path, key, "needs the configuration file of a benchmark: config: FILE")
    _check_keys(spec, ("config", "set"), path, key)
    return Benchmark(name, _find(spec["config"], path, f"{key}.config"), _mapping(spec, "set", path, key))


def _method(path: str, name: str, spec: Any, benchmarks: Sequence[str]) -> Method:
    key = f"methods.{name}"
    spec = {} if spec is None else spec
    if not isinstance(spec, dict):
        _refuse(path, key, f"is {spec!r}: give it a mapping, such as {{peer: Replay}}, or {{}}")
    _check_keys(spec, ("peer", "overlay", "set", "tune", "benchmarks"), path, key)
    overlay = [spec["overlay"]] if isinstance(spec.get("overlay"), str) else spec.get("overlay", [])
    if overlay and "peer" in spec:
        _refuse(path, f"{key}.overlay", "is for methods of ours; a peer has its own settings, in set and tune")
    tune = _mapping(spec, "tune", path, key)
    for setting, values in tune.items():
        if not isinstance(values, list) or not values:
            _refuse(path, f"{key}.tune.{setting}", f"is {values!r}: give a list of values to choose among")
    only = spec.get("benchmarks", [])
    if missing := [b for b in only if b not in benchmarks]:
        _refuse(path, f"{key}.benchmarks", f"names {missing[0]!r}; there are {', '.join(benchmarks)}")
    return Method(
        name,
        spec.get("peer"),
        tuple(_find(file, path, f"{key}.overlay") for file in overlay),
        _mapping(spec, "set", path, key),
        tune,
        tuple(only),
    )


def _peers(module: Any, methods: Sequence[Method], path: str) -> Any:
    named = [method for method in methods if method.peer is not None]
    if not named:
        return None
    if module is None:
        _refuse(path, f"methods.{named[0].name}.peer", "needs a module of peers: add peers: bayesdual.strategies.peers")
    try:
        peers = import_module(module)
    except ImportError as error:
        _refuse(path, "peers", f"is {module}, which cannot be imported ({error})")
    for method in named:
        try:
            peers.peer_named(method.peer)
        except ValueError as error:
            raise CommandLineError(f"{path}: methods.{method.name}: {error}") from None
    return peers


def _find(file: Any, path: str, key: str) -> str:
    """A configuration file: beside the comparison's, from here, or among those that ship with the package."""
    beside = Path(path).parent / str(file)
    if beside.is_file():
        return str(beside)
    try:
        return find_configs(["--config", str(file)])[1]
    except CommandLineError:
        _refuse(path, key, f"is {file}: there is no such file, here or among the configurations of the package")


def _entries(content: Mapping[str, Any], key: str, path: str) -> list[tuple[str, Any]]:
    entries = list(_mapping(content, key, path).items())
    if not entries:
        _refuse(path, key, "is empty: name at least one")
    return [(str(name), spec) for name, spec in entries]


def _mapping(content: Mapping[str, Any], key: str, path: str, above: str = "") -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        _refuse(path, f"{above}.{key}".lstrip("."), f"is {value!r}: it has to be a mapping")
    return value


def _seeds(value: Any, path: str, key: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(seed) is int for seed in value):
        _refuse(path, key, f"is {value!r}: give a list of whole numbers")
    if len(set(value)) < len(value):
        _refuse(path, key, f"is {value!r}: a seed stands there twice")
    return tuple(value)


def _check_keys(content: Mapping[str, Any], known: Sequence[str], path: str, above: str) -> None:
    for key in content:
        if key not in known:
            close = get_close_matches(str(key), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
            raise CommandLineError(f"{path}: {f'{above}.{key}'.lstrip('.')} is not a setting; {hint}")


def _refuse(path: str, key: str, what: str) -> NoReturn:
    raise CommandLineError(f"{path}: {key} {what}.")


# ----------------------------------------------------------------------- from what is compared to runs


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
    spec |= {"format": FORMAT, "threads": config["threads"] or 1}
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
        description=__doc__,
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
