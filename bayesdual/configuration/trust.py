"""What a configuration that somebody else wrote may do, and what it may only if the command line says so.

It may not read the environment (``--allow-env`` lets it), nor settings from other files, nor write to other places than
the run directory, and it may not name what runs commands, loads code or touches files as such. It does name classes and
functions, whose modules are imported: ``--only-from MODULE,...`` says from where.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesdual import dotted
from bayesdual.configuration.arguments import CommandLineError, Setting

ALLOW_ENV, ONLY_FROM = "--allow-env", "--only-from"
LOADS_CODE = (  # in PyTorch, beside what jsonargparse knows of the standard library
    "torch.hub",
    "torch.jit",
    "torch.load",
    "torch.ops",
    "torch.package",
    "torch.save",
    "torch.serialization",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
)
GROUPS = ("board", "checkpoint", "data", "model", "trainer")
PLACES = ("default_root_dir", "dir", "dirpath", "log_dir", "output_dir", "root_dir", "save_dir")  # of Lightning's


@dataclass(frozen=True)
class Trust:
    """What the command line allows.

    Attributes:
        allow_env: Whether interpolations may read environment variables.
        only_from: Modules that names in a configuration may be of; empty: any.
    """

    allow_env: bool = False
    only_from: tuple[str, ...] = ()


_MAY_READ_ENV: ContextVar[bool] = ContextVar("may_read_env", default=False)


def read_trust(argv: Sequence[str]) -> tuple[list[str], Trust]:
    """Takes ``--allow-env`` and ``--only-from`` out of a command line.

    Raises:
        CommandLineError: ``--only-from`` names no modules.
    """
    rest: list[str] = []
    allow_env, modules = False, None
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if word == ALLOW_ENV:
            allow_env = True
        elif flag == ONLY_FROM:
            modules = (value if equals else next(words, "")).split(",")
            if not all(re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", module) for module in modules):
                raise CommandLineError(f"{ONLY_FROM} needs modules: {ONLY_FROM} bayesdual,torch.nn, for example.")
        else:
            rest.append(word)
    return rest, Trust(allow_env, tuple(modules or ()))


@contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """Has what is read inside be held to this."""
    token = _MAY_READ_ENV.set(trust.allow_env)
    try:
        with dotted.only_from(trust.only_from):
            yield
    finally:
        _MAY_READ_ENV.reset(token)


@contextmanager
def guarded() -> Iterator[None]:
    """Has the parser, and interpolations, keep to what is trusted."""
    from jsonargparse import _common as jsonargparse  # which has no way to take back what set_parsing_settings said
    from jsonargparse import set_parsing_settings
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    allowed, before = dotted.allowed(), dict(jsonargparse.parsing_settings)
    everything = ["*"] if allowed else []
    set_parsing_settings(import_path_denylist=[*LOADS_CODE, *everything], import_path_allowlist=[*allowed])
    if not _MAY_READ_ENV.get():
        OmegaConf.register_resolver("oc.env", _refuse_environment, replace=True, annotation_validation="off")
    try:
        yield
    finally:
        jsonargparse.parsing_settings.update(before)
        OmegaConf.register_resolver("oc.env", oc.env, replace=True, annotation_validation="off")


def _refuse_environment(name: Any, *default: Any) -> None:
    raise PermissionError(f"the environment variable {name} is not for a configuration to read: {ALLOW_ENV} lets it")


def not_allowed(name: str) -> str:
    """The end of a sentence about a name that was refused."""
    allowed = dotted.allowed()
    if not allowed or dotted.is_of(name, LOADS_CODE):
        return f"{name}, which runs commands, loads code or touches files, and is not for a configuration to name."
    return f"{name}, and {ONLY_FROM} {','.join(allowed)} leaves it out: add its module, if you trust that."


def refuse_other_files(settings: Sequence[Setting]) -> None:
    """Refuses settings that a configuration file has stand in another file, which the parser would read.

    Raises:
        CommandLineError: There are some.
    """
    for setting in settings:
        if setting.file is not None and setting.key in GROUPS and isinstance(setting.value, str):
            raise CommandLineError(
                f"{setting.file}: {setting.key} is {setting.value!r}: give its settings there, not another file."
            )


def check_places(config: Any, settings: Sequence[Setting], run_dir: Path | None) -> None:
    """Refuses places to write to that a configuration file names, unless they are in the run directory.

    What the command line says of places is the user's own word.

    Args:
        config: The settings of a run, resolved: a mapping or a namespace.
        settings: All values given.
        run_dir: Where the run writes to; None: nowhere.

    Raises:
        CommandLineError: There is one.
    """
    for key, text in _texts(_parts(config).get("trainer"), "trainer"):
        elsewhere = key.rpartition(".")[2] in PLACES and not _is_inside(text, run_dir)
        if (elsewhere or _leads_out(text)) and not _is_users_own(key, settings):
            if run_dir is None:
                raise CommandLineError(f"{key} is {text}, and nothing is to be written there: leave it out.")
            raise CommandLineError(
                f"{key} is {text} in a configuration file, outside of {run_dir}: leave it out, or give it on the "
                "command line."
            )


def check_run_dir(settings: Sequence[Setting]) -> None:
    """Refuses a run directory that a file names, unless it is in the working directory, or the file's own.

    Raises:
        CommandLineError: It is elsewhere.
    """
    given = next((s for s in reversed(settings) if s.key == "run_dir" and s.value is not None), None)
    if given is not None and given.file is not None:
        folder = str(given.value)
        if Path(folder).absolute() != Path(given.file).parent.absolute():
            check_inside(folder, f"{given.file}: run_dir", f"--run_dir {folder}")


def check_inside(folder: str, where: str, flag: str) -> None:
    """Refuses a folder to write to that a file names outside of the working directory.

    Raises:
        CommandLineError: It is there.
    """
    if not _is_inside(folder, Path()):
        raise CommandLineError(f"{where} is {folder}, outside of the working directory: give it as {flag}.")


def _is_users_own(key: str, settings: Sequence[Setting]) -> bool:
    """Whether a value stands on the command line, alone or as part of a mapping."""
    flags = [setting for setting in settings if setting.file is None]
    return any(s.key == key or (key.startswith(f"{s.key}.") and not isinstance(s.value, str)) for s in flags)


def _is_inside(path: str, folder: Path | None) -> bool:
    """Whether a path, as it is written, stays in a folder; links are the user's own."""
    whole = Path(os.path.abspath(path))
    return "://" not in path and folder is not None and whole.is_relative_to(os.path.abspath(folder))


def _leads_out(text: str) -> bool:
    out = "://" in text or os.path.isabs(text) or text.startswith("~")
    return out or ".." in re.split(r"[/\\]", text)


def _parts(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else vars(value) if isinstance(value, Namespace) else {}


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """All text in a value, with its key."""
    if isinstance(value, str):
        yield key, value
    for part in value if isinstance(value, list | tuple) else ():
        yield from _texts(part, key)
    for name, part in _parts(value).items():
        yield from _texts(part, f"{key}.{name}")
