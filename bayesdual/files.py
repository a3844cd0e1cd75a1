"""Files that are there whole or not at all: written under a temporary name and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Has ``write`` write a temporary file beside ``path`` (with the same suffix) and renames it to ``path``."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file."""
    write_whole(path, lambda p: p.write_text(json.dumps(value, indent=2) + "\n"))
