"""``merge``: one model of several that were trained from a common base."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich import box
from rich import print as rich_print
from rich.table import Table

from bayesdual.cli.words import WordParser
from bayesdual.merging import METHODS, merge_files

OPTIONS = {
    "prior_precision": "delta of gradient_matching; by default that of the posteriors, or 0",
    "damping": "lambda of gradient_matching with Kronecker factors",
    "tolerance": "of its conjugate gradients",
    "off_diagonal": "factor of the off-diagonal entries of input factors, of regmean and gradient_matching",
    "density": "share of the entries that ties keeps",
}
QUIET_SECONDS = 5.0  # before and between lines of progress


def parser() -> WordParser:
    """Of the words after ``merge``."""
    result = WordParser(
        "merge",
        description="Make one model of several that were trained from a common base, without their data.",
        epilog="A model is a run directory, a checkpoint, a state dict (.pt), a safetensors file or its index, or a "
        "directory that holds one, as of a PEFT adapter. Nothing in a file is executed.",
    )
    result.add_argument("--base", metavar="PATH", help="what the models were trained from; left out: zeros")
    result.add_argument("--models", metavar="PATH", nargs="+", required=True, help="the models")
    result.add_argument(
        "--method", default="gradient_matching", choices=METHODS, help="%(choices)s (default %(default)s)"
    )
    result.add_argument("--output", metavar="DIRECTORY", required=True, help="a new directory")
    result.add_argument("--scales", metavar="S", type=float, nargs="+", help="how much each model counts (default 1)")
    result.add_argument(
        "--base_scale", metavar="S", type=float, default=1.0, help="how much the base's curvature counts"
    )
    result.add_argument("--alpha", metavar="A", type=float, default=1.0, help="how far from the base, 0..1 (default 1)")
    result.add_argument(
        "--curvatures", metavar="FILE", nargs="+", help="the models' curvatures, if not their posteriors'"
    )
    result.add_argument("--base_curvature", metavar="FILE", help="the base's")
    result.add_argument(
        "--classes", metavar="C,C,...", nargs="+", type=class_list, help="the classes of the rows of each model's head"
    )
    for name, text in OPTIONS.items():
        result.add_argument(f"--{name}", metavar="X", type=float, help=text)
    return result


def class_list(text: str) -> list[int]:
    """The numbers of a list with commas."""
    return [int(word) for word in text.split(",")]


def main(argv: list[str]) -> None:
    """Merges, and prints what was merged.

    Args:
        argv: The command line, without the word ``merge``.

    Raises:
        CommandLineError: It is not understood.
        ValueError: The models cannot be merged.
    """
    given = vars(parser().parse_args(argv))
    options = {name: value for name in OPTIONS if (value := given.pop(name)) is not None}
    output = given.pop("output")
    record = merge_files(given.pop("base"), given.pop("models"), output, report=Progress(), **given, **options)
    rich_print(table(record))
    print(f"merged into {output}" + (", with its posterior" if record["posterior"] else ""))


class Progress:
    """A line on standard error every few seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + QUIET_SECONDS

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() > self._next:
            print(f"merged {done} of {total} tensors", file=sys.stderr, flush=True)
            self._next = time.monotonic() + QUIET_SECONDS


def table(record: dict[str, Any]) -> Table:
    """What was merged."""
    result = Table("model", "kind", "curvature", box=box.SIMPLE_HEAD, padding=0, title=record["method"])
    for name in ("scale", "distance"):
        result.add_column(name, justify="right")
    base = record["base"]
    result.add_row(base["path"] or "zeros", base["kind"], base["curvature"], f"{record['base_scale']:g}", "base")
    for model in record["models"]:
        numbers = f"{model['scale']:g}", f"{model['distance']:.3g}"
        result.add_row(model["path"], model["kind"], model["curvature"], *numbers)
    return result
