"""``python -m bayesdual``: says what went wrong in one sentence; with ``--debug``, with the traceback."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from pathlib import Path

QUIET = (  # what others print at import or in normal use, and nobody can act on
    ".*no QP solver found.*",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*is deprecated.*",
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    for message in QUIET:
        warnings.filterwarnings("ignore", message=message)
    from bayesdual import cli  # after the filters: importing it takes seconds, and warns

    for name in ("lightning.pytorch", "lightning.fabric"):  # after the import, which sets them to INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        cli.run(argv)
    except KeyboardInterrupt:
        return interrupted()
    except SystemExit as stop:
        return interrupted() if "fit" in argv and stop.code == 1 else int(stop.code or 0)
    except Exception as error:
        if debug:
            raise
        print(f"bayesdual: {sentence(error, argv)}", file=sys.stderr)
        return 2 if isinstance(error, cli.CommandLineError) else 1
    return 0


def interrupted() -> int:
    print("bayesdual: stopped; fit --ckpt_path last goes on from the last finished epoch.", file=sys.stderr)
    return 130


def sentence(error: Exception, argv: list[str]) -> str:
    """One sentence about an error; the key of a configuration is followed by the file it stands in."""
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, (ValueError, OSError, ArithmeticError)) and type(error).__name__ != "CommandLineError":
        text = f"{type(error).__name__}: {text} (--debug shows where)"
    text = re.sub(r"\s+", " ", text)
    match = re.search(r'(?:[Kk]ey|Option) "([\w.]+)"|Key \'([\w.]+)\'', text)
    if match:
        key = (match.group(1) or match.group(2)).rpartition(".")[2]
        for path in files_of(argv):
            if re.search(rf"^\s*{re.escape(key)}\s*:", path.read_text(), re.MULTILINE):
                return f"{path}: {text}"
    return text


def files_of(argv: list[str]) -> list[Path]:
    from bayesdual.cli import config_places, find_configs

    return [Path(path) for _, path in config_places(find_configs(argv))]


if __name__ == "__main__":
    sys.exit(main())
