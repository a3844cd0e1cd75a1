"""``python -m bayesdual inspect RUN...``: what runs have learned, forgotten and remembered, as a page and figures."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console

from bayesdual.configuration import CommandLineError
from bayesdual.files import write_whole
from bayesdual.inspection import (
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


def main(argv: list[str]) -> None:
    """Reads runs and writes ``report.html`` and the figures.

    Args:
        argv: The command line, without the word ``inspect``.

    Raises:
        CommandLineError: There is no such run, or it cannot be read or written.
    """
    args = parser().parse_args(argv)
    try:
        runs = [read_run(path) for path in args.runs]
    except (ValueError, OSError) as error:
        raise CommandLineError(str(error)) from None
    first: Path = args.runs[0]
    output: Path = args.output or (first if first.is_dir() else first.parent.parent) / "report"
    figures = [figures_of(run) for run in runs]
    drawings = [drawn(of_run) for of_run in figures]
    page = report(runs, drawings, live=can_be_live())
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
    console = Console(highlight=False)
    for run in runs:
        score = score_of(run.results)
        console.print(f"{run.name}: {score.name} on each experience (columns) after learning each (rows):")
        names = run.results.get("class_names")
        most = classes_lost(run.results.get("accuracy_of_classes") or [], names)
        console.print(*accuracy_tables(run.matrix, score), verdict(run.matrix, score, most))
    console.print(f"report: {output / 'report.html'}", soft_wrap=True)
    if not can_be_live():
        console.print("note: its figures cannot be looked into: pip install 'bayesdual\\[inspect]'.", soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """That of the command."""
    made = argparse.ArgumentParser("python -m bayesdual inspect", description=(__doc__ or "").partition(": ")[2])
    of_runs = "a run directory, finished or not, or a checkpoint"
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=of_runs)
    made.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write to; otherwise report/ in the first run"
    )
    return made
