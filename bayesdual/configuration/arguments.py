"""What a command line and its configuration files say, before the parser sees them.

Files are found and checked, names of before are brought up to date, flags of the benchmark are joined, and every value
is known by its key and its source, so that a complaint can name both.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bayesdual.configuration.moved import current_names

RUN_COMMANDS = {
    "fit": "Learn a stream of experiences, and evaluate after each.",
    "validate": "Evaluate a checkpoint on the validation stream.",
    "test": "Evaluate a checkpoint on the test stream.",
    "predict": "Write predictions to CSV: of the test stream, or with RUN of --input DATA.",
}
COMMANDS = {
    **RUN_COMMANDS,
    "learn": "Learn what comes next in a run that has learned its stream.",
    "compare": "Learn by many methods, ours and baselines, tuned by the same budget, and tabulate.",
    "merge": "Make one model of several that were trained from a common base.",
    "export": "Write the network of a run to a file that others read.",
    "inspect": "Make a page and figures of what runs have learned, forgotten and remembered.",
    "list": "Name the scenarios, networks, selections, priors, methods and baselines that there are.",
}
BENCHMARK = "data.benchmark"
NAMING = {"memory_size": ("memory_", ""), "memory_bytes": ("memory_", "_bytes"), "seed_everything": ("seed_", "")}
"""Flags whose values are in the name of a run, by their last words."""


class CommandLineError(Exception):
    """What is wrong with the command line or a configuration, in one sentence."""


@dataclass(frozen=True)
class Setting:
    """A value that somebody gave.

    Attributes:
        key: Its dotted key.
        value: The value, as YAML reads it.
        file: The file it stands in; None: the command line.
    """

    key: str
    value: Any
    file: str | None = None


def config_places(argv: list[str]) -> list[tuple[int, str]]:
    """The configuration files of a command line, each with the place of its argument."""
    places = []
    for i, word in enumerate(argv):
        if word in ("--config", "-c") and i + 1 < len(argv):
            places.append((i + 1, argv[i + 1]))
        elif word.startswith("--config="):
            places.append((i, word.removeprefix("--config=")))
    return places


def find_configs(argv: list[str]) -> list[str]:
    """Replaces the paths after ``--config`` that are not there by the configuration that ships with the package.

    ``--config configs/split_digits.yaml`` thus works from any folder.

    Raises:
        CommandLineError: There is neither.
    """
    result = list(argv)
    for place, path in config_places(argv):
        if not Path(path).exists():
            folder = Path(str(resources.files("bayesdual.configs")))
            shipped = folder / path.removeprefix("configs/")
            if not shipped.is_file():
                raise CommandLineError(
                    f"--config {path}: there is no such file, nor one of that name among the configurations that "
                    f"ship in {folder}."
                )
            result[place] = argv[place].removesuffix(path) + str(shipped)
    return result


def config_text(path: str) -> str:
    """The text of a configuration file, with today's names for what has moved."""
    return current_names(Path(path).read_text(encoding="utf-8"))


def read_config(path: str) -> dict[str, Any]:
    """Reads a configuration file; interpolations are left as they stand.

    Raises:
        CommandLineError: It cannot be read, is not YAML, or holds no mapping of keys to values.
    """
    try:
        text = config_text(path)
        is_mapping = isinstance(yaml.compose(text, Loader=yaml.SafeLoader), yaml.MappingNode)
        content = from_yaml(text) if is_mapping else {}
    except OSError as error:
        raise CommandLineError(f"--config {path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise CommandLineError(f"{path} is not a text file: give a YAML file to --config.") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise CommandLineError(f"{path} is not YAML: {where}{one_line(problem)}.") from None
    except OmegaConfBaseException as error:
        problem = re.sub(r"(.*?) full_key: (\S+).*", r"\2 cannot be read (\1)", one_line(error))
        raise CommandLineError(f"{path}: {problem}.") from None
    if not content:
        raise CommandLineError(f"{path} holds no settings: write KEY: VALUE lines, as --print_config shows them.")
    return content


def from_yaml(text: str) -> Any:
    """Reads YAML as OmegaConf does: 1e-3 is a number, and no key may come twice."""
    return OmegaConf.to_container(OmegaConf.create(text))


def read_value(word: str) -> Any:
    """Reads the value of a flag as YAML; what is not YAML is text."""
    try:
        return from_yaml(f"value: {word}")["value"]
    except (yaml.YAMLError, OmegaConfBaseException):
        return word


def to_flag(key: str, value: Any) -> str:
    """The flag that gives a key a value."""
    return current_names(f"--{key}={value if isinstance(value, str) else json.dumps(value)}")


def flags_of(argv: list[str]) -> Iterator[tuple[int, str, str | None]]:
    """The flags of a command line: place, dotted key and, if there is one, the value."""
    for i, word in enumerate(argv):
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            following = argv[i + 1] if i + 1 < len(argv) and not argv[i + 1].startswith("--") else None
            yield i, key, value if equals else following


def read_settings(argv: list[str]) -> list[Setting]:
    """All values of the configuration files and of the flags; a later one overrides an earlier one."""
    settings = []
    for _, path in config_places(argv):
        settings += [Setting(key, value, path) for key, value in flatten(read_config(path))]
    for _, key, value in flags_of(argv):
        if key != "config":
            settings.append(Setting(key, None if value is None else read_value(value)))
    return settings


def flatten(content: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, by dotted key."""
    for name, value in content.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{key}.")
        else:
            yield key, value


def name_of_run(argv: list[str]) -> str:
    """What a run is named after: its first configuration, and what tells it from others that begin with that.

    These are the overlays, and the memory and the seed that flags give: ``split_digits-replay-seed_3``. The
    ``config.yaml`` of a run is named as the run was.
    """
    places = [Path(path) for _, path in config_places(argv)]
    if not places:
        return "run"
    run = run_of_config(places[0])
    first = places[0].stem if run is None else re.sub(r"-\d+$", "", run.absolute().name)
    marks = [path.stem for path in places[1:]]
    marks += [
        f"{word}{value}{unit}"
        for _, key, value in flags_of(argv)
        for ending, (word, unit) in NAMING.items()
        if value is not None and value.isdigit() and key.rpartition(".")[2] == ending
    ]
    return "-".join([first, *marks])


def run_of_config(path: Path) -> Path | None:
    """The run directory that a configuration was left in, if it was."""
    is_of_run = re.fullmatch(r"config(-\d+)?\.yaml", path.name) and (path.parent / "checkpoints").is_dir()
    return path.parent if is_of_run else None


def join_benchmark(argv: list[str]) -> list[str]:
    """Joins ``--data.benchmark NAME``, its ``.init_args.KEY`` flags and what the configurations say into one flag.

    The parser takes such flags for classes only, and a benchmark is any callable. As with classes, a new name keeps
    those arguments of the old one that it takes as well.

    Raises:
        CommandLineError: A flag is not one of these, or there are arguments but no name.
    """
    rest = list(argv)
    flags: list[tuple[str, str]] = []
    for i, key, value in reversed(list(flags_of(argv))):
        if key == BENCHMARK or key.startswith(f"{BENCHMARK}."):
            if value is None:
                raise CommandLineError(f"--{key} needs a value.")
            flags.insert(0, (key.removeprefix(BENCHMARK), value))
            del rest[i : i + (1 if "=" in argv[i] else 2)]
    if not flags and len(config_places(argv)) < 2:
        return argv
    spec: dict[str, Any] = {}
    for _, path in config_places(argv):
        data = read_config(path).get("data")
        merge_benchmark(spec, data.get("benchmark") if isinstance(data, dict) else None)
    for key, value in flags:
        if key in ("", ".class_path"):
            merge_benchmark(spec, read_value(value))
        elif key.startswith(".init_args."):
            merge_benchmark(spec, {"init_args": {key.removeprefix(".init_args."): read_value(value)}})
        else:
            raise CommandLineError(
                f"--{BENCHMARK}{key} is not a setting: use --{BENCHMARK} NAME and --{BENCHMARK}.init_args.KEY VALUE."
            )
    if not spec:
        return rest
    if "class_path" not in spec:
        raise CommandLineError(f"{BENCHMARK}.init_args are given without a benchmark: add --{BENCHMARK} NAME.")
    return [*rest, f"--{BENCHMARK}={json.dumps(spec)}"]


def merge_benchmark(spec: dict[str, Any], more: Any) -> None:
    """Lays ``more`` (a name, or class_path and init_args) over ``spec``, in place.

    Raises:
        CommandLineError: ``more`` is neither.
    """
    if more is None:
        return
    more = {"class_path": more} if isinstance(more, str) else more
    if not isinstance(more, dict) or more.keys() - {"class_path", "init_args"}:
        raise CommandLineError(
            f"{BENCHMARK} is {more!r}: give the dotted name of a callable as class_path, and its init_args."
        )
    name = more.get("class_path")
    if name is not None and name != spec.get("class_path"):
        spec.clear()
        spec["class_path"] = name
    spec["init_args"] = {**spec.get("init_args", {}), **(more.get("init_args") or {})}


def with_current_names(argv: list[str]) -> list[str]:
    """Replaces old names in the flags of a command line; those in its files are replaced where the files are read."""
    files = dict(config_places(argv))
    return [word if i in files else current_names(word) for i, word in enumerate(argv)]


def inline_configs(argv: list[str]) -> list[str]:
    """Hands a configuration over as text where it is not to be read as it stands: old names, and interpolations."""
    result = list(argv)
    for place, path in config_places(argv):
        text = config_text(path)
        if "${" in text or text != Path(path).read_text(encoding="utf-8"):
            result[place] = argv[place].removesuffix(path) + text
    return result


def anchor_interpolations(argv: list[str]) -> list[str]:
    """Makes ``${data.epochs}`` mean the final value of that key, flags included.

    The parser keeps the settings of ``fit`` below ``fit``, which is where absolute interpolations have to point.

    Args:
        argv: A command line whose configurations with interpolations are there as text.
    """
    command = next((word for word in argv if word in RUN_COMMANDS), None)
    if command is None:
        return argv
    # A name followed by a colon is a resolver (${oc.env:HOME}), and a leading dot is relative.
    return [re.sub(r"\$\{(?=[A-Za-z_])(?![\w.]+:)", f"${{{command}.", word) for word in argv]


def undone(argv: list[str]) -> str | None:
    """Says in one sentence which overlay a whole configuration given after it undoes; None if there is none.

    A whole configuration names a benchmark; what names none is laid over one, and belongs after it.
    """
    files = [(path, dict(flatten(read_config(path)))) for _, path in config_places(argv)]
    for (overlay, earlier), (whole, later) in itertools.combinations(files, 2):
        if _names_benchmark(earlier) or not _names_benchmark(later):
            continue
        if keys := [key for key, value in earlier.items() if _says_otherwise(later, key, value)]:
            return (
                f"{whole} comes after {overlay} and undoes what it says of {', '.join(keys)}: give --config {overlay} "
                "last."
            )
    return None


def _names_benchmark(settings: Mapping[str, Any]) -> bool:
    return not settings.keys().isdisjoint((BENCHMARK, f"{BENCHMARK}.class_path"))


def _says_otherwise(settings: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether settings give a key, one below it or one above it another value."""
    return settings.get(key, value) != value or any(
        k.startswith(f"{key}.") or key.startswith(f"{k}.") for k in settings
    )


def one_line(text: object) -> str:
    """Collapses white space and drops the full stop at the end."""
    return re.sub(r"\s+", " ", str(text)).strip().removesuffix(".")
