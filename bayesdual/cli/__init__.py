"""The command line."""

from bayesdual.cli.main import run

__all__ = ["run"]
