"""``python -m bayesdual inspect RUN...``: what runs have learned, forgotten and remembered, as a page and figures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from bayesdual.configuration import CommandLineError, in_use
from bayesdual.files import write_whole
from bayesdual.inspection import (
    Run,
    accuracy_tables,
    can_be_live,
    classes_lost,
    drawn,
    figures_of,
    read_run,
    report,
    score_of,
    verdict,
)

SECONDS = 10  # after which a page that is watched is read again
STEP = 1.0  # seconds between two looks at what a run has written
WRITTEN = ("results.json", "checkpoints/last.ckpt")


def main(argv: list[str]) -> None:
    """Reads runs and writes ``report.html`` and the figures, with ``--watch`` again and again while a run goes on.

    Args:
        argv: The command line, without the word ``inspect``.

    Raises:
        CommandLineError: There is no such run, or it cannot be read or written.
    """
    args = parser().parse_args(argv)
    output: Path = args.output or _folder(args.runs[0]) / "report"
    console = Console(highlight=False)
    runs = _watched(args.runs, output, console) if args.watch else _read(args.runs)
    write(runs, output)
    for run in runs:
        _print(run, console)
    console.print(f"report: {output / 'report.html'}", soft_wrap=True)
    if not can_be_live():
        console.print("note: its figures cannot be looked into: pip install 'bayesdual\\[inspect]'.", soft_wrap=True)


def _watched(paths: Sequence[Path], output: Path, console: Console) -> list[Run]:
    """Writes the page whenever a run has written something, until none goes on or Ctrl-C is pressed; what they left."""
    shown = ""
    try:
        while any(in_use(_folder(path)) for path in paths):
            if (stamp := _stamp(paths)) != shown:
                shown = stamp
                _show_what_there_is(paths, output, console)
            time.sleep(STEP)
    except KeyboardInterrupt:
        console.print("no longer watched; the page is written once more.")
    else:
        if not shown:
            console.print("note: no run goes on that could be watched: the page is written once.", soft_wrap=True)
    return _read(paths)


def _show_what_there_is(paths: Sequence[Path], output: Path, console: Console) -> None:
    try:
        runs = [read_run(path) for path in paths]
    except (ValueError, OSError) as error:  # nothing learned yet, most often
        console.print(f"waiting: {error}", soft_wrap=True)
        return
    write(runs, output, reload=SECONDS)
    told = ", ".join(f"{run.name} {run.results['experiences_learned']} of {len(run.matrix[0])}" for run in runs)
    console.print(f"experiences learned: {told}; page: {output / 'report.html'}", soft_wrap=True)


def _stamp(paths: Sequence[Path]) -> str:
    """What changes when a run has written something."""
    files = [_folder(path) / name for path in paths for name in WRITTEN]
    return repr([file.stat().st_mtime_ns if file.is_file() else 0 for file in files]) + " "


def _folder(path: Path) -> Path:
    """The run directory: of a checkpoint that above its folder."""
    return path if path.is_dir() else path.parent.parent


def _read(paths: Sequence[Path]) -> list[Run]:
    try:
        return [read_run(path) for path in paths]
    except (ValueError, OSError) as error:
        raise CommandLineError(str(error)) from None


def write(runs: Sequence[Run], output: Path, reload: int | None = None) -> None:
    """Writes the page and the figures.

    Args:
        runs: What is known of each.
        output: Where to.
        reload: Seconds after which a browser reads the page again; None: never.

    Raises:
        CommandLineError: It cannot be written.
    """
    figures = [figures_of(run) for run in runs]
    drawings = [drawn(of_run) for of_run in figures]
    page = report(runs, drawings, live=can_be_live(), reload=reload)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for number, (of_run, svgs) in enumerate(zip(figures, drawings, strict=True), start=1):
            before = f"{number}-" if len(runs) > 1 else ""
            for name, figure in of_run.items():
                write_whole(output / f"{before}{name}.png", partial(figure.savefig, dpi=120))
                write_whole(output / f"{before}{name}.svg", partial(Path.write_bytes, data=svgs[name]))
        write_whole(output / "report.html", lambda path: path.write_text(page, encoding="utf-8"))
    except OSError as error:
        raise CommandLineError(f"--output {output} cannot be written to ({error.strerror}): give another.") from None


def _print(run: Run, console: Console) -> None:
    score, names = score_of(run.results), run.results.get("class_names")
    most = classes_lost(run.results.get("accuracy_of_classes") or [], names)
    console.print(f"{run.name}: {score.name} on each experience (columns) after learning each (rows):")
    console.print(*accuracy_tables(run.matrix, score), verdict(run.matrix, score, most))


def parser() -> argparse.ArgumentParser:
    """That of the command."""
    made = argparse.ArgumentParser("python -m bayesdual inspect", description=(__doc__ or "").partition(": ")[2])
    of_runs = "a run directory, finished or not, or a checkpoint"
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=of_runs)
    made.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write to; otherwise report/ in the first run"
    )
    again = f"write the page again whenever a run has, and have it read again every {SECONDS} s, until the run ends"
    made.add_argument("--watch", action="store_true", help=again)
    return made
