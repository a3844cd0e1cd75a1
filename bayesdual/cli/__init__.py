"""The command line."""

from bayesdual.extras import require

require("the command line", "all")

from bayesdual.cli.main import run

__all__ = ["run"]
