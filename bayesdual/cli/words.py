"""A parser of words that says what is wrong in one sentence."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from bayesdual.configuration import CommandLineError


class WordParser(argparse.ArgumentParser):
    """That of a command without configuration files; it takes no abbreviated flags."""

    def __init__(self, command: str, **kwargs: Any) -> None:
        self.command = command
        super().__init__(f"python -m bayesdual {command}", allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise CommandLineError(f"{self.command}: {message}; --help shows all arguments.")
