"""``python -m bayesdual``: says what went wrong in one sentence; with ``--debug``, with the traceback."""

from __future__ import annotations

import sys
import warnings

from bayesdual.extras import MissingExtra

QUIET = (  # what others print at import or in normal use, and nobody can act on
    ".*no QP solver found.*",
    ".*LightningCLI's args parameter is intended.*",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*is deprecated.*",
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit status.

    0: done; 1: it failed; 2: it was not understood; 130: stopped by Ctrl-C; 143: stopped by SIGTERM.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    for message in QUIET:
        warnings.filterwarnings("ignore", message=message)
    try:
        from bayesdual import cli  # after the filters: what a command imports warns

        cli.run(argv)
    except MissingExtra as error:
        print(f"bayesdual: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return stopped(argv, 130)
    except SystemExit as stop:
        if type(stop).__name__ == "SIGTERMException" or stop.code == 143:
            return stopped(argv, 143)
        return stopped(argv, 130) if stop.code == 1 else int(stop.code or 0)  # 1 is what Lightning makes of Ctrl-C
    except Exception as error:
        if debug:
            raise
        return failed(error, argv)
    return 0


def stopped(argv: list[str], status: int) -> int:
    """Says how a command that was stopped goes on, and returns the exit status."""
    advice = ""
    if "fit" in argv:
        advice = "; --ckpt_path last goes on from the last checkpoint"
    elif argv[:1] == ["learn"]:
        advice = "; the same command goes on from the last checkpoint"
    elif argv[:1] == ["compare"]:
        advice = "; the same command goes on from the runs that are finished"
    print(f"bayesdual: stopped{advice}.", file=sys.stderr)
    return status


def failed(error: Exception, argv: list[str]) -> int:
    """Says in one sentence what went wrong, and returns the exit status."""
    from bayesdual import configuration

    if isinstance(error, configuration.CommandLineError):
        text, status = str(error), 2
    else:
        argv = configuration.find_configs(configuration.with_current_names(argv))
        text, status = configuration.failure(error, configuration.read_settings(argv)), 1
    print(f"bayesdual: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
