"""``python -m bayesdual export RUN --output FILE``: what a run has learned, as a file that others read."""

from __future__ import annotations

from pathlib import Path

from bayesdual.cli.words import WordParser
from bayesdual.serving import export, load


def main(argv: list[str]) -> None:
    """Exports.

    Args:
        argv: The command line, without the word ``export``.

    Raises:
        CommandLineError: It is not understood.
        OSError: A file is not there, or cannot be written.
        ValueError: The run cannot be exported so.
    """
    given = parser().parse_args(argv)
    export(load(given.run, prediction="mean"), given.output)
    print(f"exported to {given.output}")


def parser() -> WordParser:
    """That of the command."""
    made = WordParser(
        "export", description="Write the network of a run, from raw inputs to probabilities, to a file for others."
    )
    made.add_argument("run", metavar="RUN", type=Path, help="a run directory, or a checkpoint in one")
    made.add_argument("--output", metavar="FILE", type=Path, required=True, help="a .pt2, .onnx or .safetensors file")
    return made
