"""The command line."""

from bayesdual.cli.fit import run

__all__ = ["run"]
