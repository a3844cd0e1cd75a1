"""Which command a command line means. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path

from bayesdual import __version__, sources
from bayesdual.cli.stopping import preemption_as_sigterm, sigterm_ends
from bayesdual.configuration import (
    COMMANDS,
    CommandLineError,
    config_places,
    find_configs,
    not_among,
    read_config,
    read_trust,
    trusting,
    undone,
    with_current_names,
)

PROGRAM = "python -m bayesdual"


def run(argv: list[str]) -> None:
    """Runs a command line.

    Args:
        argv: The command line, without the program.

    Raises:
        CommandLineError: It says something that cannot be.
        Exception: Whatever went wrong in a command.
    """
    argv, trust = read_trust(argv)
    with trusting(trust):
        run_command(argv)


def run_command(argv: list[str]) -> None:
    """Runs a command, as far as the command line trusts what it reads."""
    command = argv[0] if argv else None
    if command in ("-h", "--help"):
        print(help_text())
    elif command == "--version":
        print(version_text())
    elif command is None:
        raise CommandLineError(f"a command is missing: choose {', '.join(COMMANDS)}.")
    elif command == "list":
        from bayesdual.cli import list as listing

        listing.main(argv[1:])
    elif command == "merge":
        from bayesdual.cli import merge

        merge.main(argv[1:])
    elif command == "learn":
        from bayesdual.cli import learn

        with sigterm_ends(), preemption_as_sigterm():
            learn.main(argv[1:])
    elif command == "export":
        from bayesdual.cli import export

        export.main(argv[1:])
    elif command == "predict" and any(word.partition("=")[0] == "--input" for word in argv):
        from bayesdual.cli import predict

        predict.main(argv[1:])
    elif command == "inspect":
        from bayesdual.cli import inspect

        inspect.main(argv[1:])
    elif command in COMMANDS or command.startswith("-"):  # settings may come before the command
        run_configured(argv)
    else:
        raise CommandLineError(not_among("command", command, list(COMMANDS)))


def run_configured(argv: list[str]) -> None:
    """Runs a command that takes configuration files."""
    argv = find_configs(with_config_of_run(with_current_names(argv)))
    for _, path in config_places(argv):
        read_config(path)  # refuses what cannot be read before anything is loaded
    with sigterm_ends(), preemption_as_sigterm():
        if argv[0] == "compare":
            from bayesdual import comparison

            comparison.main(argv[1:])
            return
        if (sentence := undone(argv)) is not None:
            print(f"bayesdual: {sentence}", file=sys.stderr)
        from bayesdual.cli.fit import Cli

        Cli(argv)


def with_config_of_run(argv: list[str]) -> list[str]:
    """A command line that evaluates a checkpoint and names no configuration, with that of the checkpoint's run."""
    if argv[0] not in ("validate", "test", "predict") or any(word.partition("=")[0] == "--config" for word in argv):
        return argv
    words = [part for word in argv for part in word.split("=", 1)]
    checkpoint = dict(zip(words, words[1:], strict=False)).get("--ckpt_path")
    config = None if checkpoint is None else Path(checkpoint).parent.parent / "config.yaml"
    if config is None or not Path(str(checkpoint)).is_file() or not config.is_file():
        return argv
    return [argv[0], "--config", str(config), *argv[1:]]


def help_text() -> str:
    """What ``--help`` says of all commands."""
    lines = [
        f"usage: {PROGRAM} COMMAND [--config FILE ...] [--KEY VALUE ...]",
        "",
        "Learn a stream of tasks, one experience after the other, without forgetting.",
        "",
        "commands:",
        *(f"  {command:<10}{text}" for command, text in COMMANDS.items()),
        "",
        "options:",
        "  --help    Show this text; after a command, show what that command takes.",
        "  --version Show the version, and a digest of the code.",
        "  --debug   Show where an error comes from.",
        "  --allow-env            Let configurations read environment variables: ${oc.env:NAME}.",
        "  --only-from A,B.C,...  Let configurations name classes and functions of these modules alone.",
        "",
        f"For example: {PROGRAM} fit --config configs/split_digits.yaml",
    ]
    return "\n".join(lines)


def version_text() -> str:
    """The version, and the digest of all code, which changes with every change of it."""
    return f"bayesdual {__version__} (code {sources.digest_of_all()[: sources.SHORT]})"
