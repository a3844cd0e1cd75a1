"""What a comparison compares, read from its configuration file::

folder: comparisons/digits           # where it writes to; or --folder
seeds: [0, 1, 2]
tuning: {seeds: [0], validation: 0.1}  # share of the training data on which settings are chosen
baselines: bayesdual.strategies.baselines  # the module that plans and learns what a method names as its baseline
benchmarks:                          # a configuration of fit, and settings changed in it by dotted key
  memory 50: {config: split_digits.yaml, set: {model.algorithm.init_args.memory_size: 50}}
methods:
  bayesdual: {tune: {model.optimizer.init_args.lr_factor: [1.0, 0.5, 1.5]}}
  replay: {overlay: methods/replay.yaml, set: {model.lr_end: 1.0}}
  DER++: {baseline: DER++, set: {replay_batch_size: 64}, tune: {lr: [1e-3, 3e-4, 1e-4]}}

The keys ``baseline`` and ``baselines`` may be called ``peer`` and ``peers``, as they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from bayesdual.comparison.statistics import BASELINE, OURS, OWN
from bayesdual.configuration import CommandLineError, check_inside, find_configs, read_config
from bayesdual.dotted import NotAllowed, module_named, refuse_others


@dataclass(frozen=True)
class Benchmark:
    """A column of the comparison: a configuration file that is there, and settings changed in it."""

    name: str
    config: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes:
        name: What it is called.
        baseline: Which baseline it is; None: it is ours.
        overlay: Configuration files laid over the benchmark's, for a method of ours.
        settings: Settings changed; for a baseline, its own.
        tune: Values to choose among, by setting.
        benchmarks: The benchmarks it is for; empty: all.
    """

    name: str
    baseline: str | None = None
    overlay: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, list[Any]] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()

    @property
    def grid(self) -> list[dict[str, Any]]:
        """All combinations of the values to choose among; one, empty, if there are none."""
        return [dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())]


@dataclass(frozen=True)
class Comparison:
    """What a configuration file of ``compare`` says; see the module."""

    source: str
    folder: Path
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    validation: float
    benchmarks: tuple[Benchmark, ...]
    methods: tuple[Method, ...]
    ours: str | None
    baselines: Any

    @property
    def pairs(self) -> list[tuple[Benchmark, Method]]:
        """Each benchmark with each of its methods."""
        return [(b, m) for b in self.benchmarks for m in self.methods if not m.benchmarks or b.name in m.benchmarks]

    def role(self, method: Method) -> str:
        """See :class:`bayesdual.comparison.Entry`."""
        if method.baseline is not None:
            return self.baselines.bound(method.baseline) or BASELINE
        return OURS if method.name == self.ours else OWN


def read_comparison(path: str, folder: str | None = None) -> Comparison:
    """Reads the configuration of a comparison.

    Args:
        path: The file.
        folder: Where to write to, instead of what the file says.

    Raises:
        CommandLineError: Something in it cannot be.
    """
    content = _renamed(read_config(path), "peers", "baselines", path)
    _check_keys(content, ("folder", "seeds", "tuning", "baselines", "benchmarks", "methods", "ours"), path, "")
    tuning = _mapping(content, "tuning", path)
    _check_keys(tuning, ("seeds", "validation"), path, "tuning")
    validation = tuning.get("validation", 0.1)
    if not isinstance(validation, int | float) or not 0 < validation < 1:
        _refuse(path, "tuning.validation", f"is {validation!r}: give a share of the training data, such as 0.1")
    if folder is None and isinstance(given := content.get("folder"), str):
        check_inside(given, f"{path}: folder", f"--folder {given}")
        folder = given
    if not isinstance(folder, str):
        _refuse(path, "folder", "is missing: say where to write, there or by --folder")
    benchmarks = tuple(_benchmark(path, name, spec) for name, spec in _entries(content, "benchmarks", path))
    methods = tuple(
        _method(path, name, spec, [b.name for b in benchmarks]) for name, spec in _entries(content, "methods", path)
    )
    own = [method.name for method in methods if method.baseline is None]
    ours = content.get("ours", own[0] if own else None)
    if "ours" in content and ours not in own:
        _refuse(path, "ours", f"is {ours!r}, which is no method of ours; there are {', '.join(own) or 'none'}")
    return Comparison(
        source=path,
        folder=Path(folder),
        seeds=_seeds(content.get("seeds", [0, 1, 2]), path, "seeds"),
        tuning_seeds=_seeds(tuning.get("seeds", [0]), path, "tuning.seeds"),
        validation=validation,
        benchmarks=benchmarks,
        methods=methods,
        ours=ours,
        baselines=_baselines(content.get("baselines"), methods, path),
    )


def _benchmark(path: str, name: str, spec: Any) -> Benchmark:
    key = f"benchmarks.{name}"
    spec = {"config": spec} if isinstance(spec, str) else spec
    if not isinstance(spec, dict) or not isinstance(spec.get("config"), str):
        _refuse(path, key, "needs the configuration file of a benchmark: config: FILE")
    _check_keys(spec, ("config", "set"), path, key)
    return Benchmark(name, _find(spec["config"], path, f"{key}.config"), _mapping(spec, "set", path, key))


def _method(path: str, name: str, spec: Any, benchmarks: Sequence[str]) -> Method:
    key = f"methods.{name}"
    spec = {} if spec is None else spec
    if not isinstance(spec, dict):
        _refuse(path, key, f"is {spec!r}: give it a mapping, such as {{baseline: Replay}}, or {{}}")
    spec = _renamed(spec, "peer", "baseline", path, key)
    _check_keys(spec, ("baseline", "overlay", "set", "tune", "benchmarks"), path, key)
    overlay = [spec["overlay"]] if isinstance(spec.get("overlay"), str) else spec.get("overlay", [])
    if overlay and "baseline" in spec:
        _refuse(path, f"{key}.overlay", "is for methods of ours; a baseline has its own settings, in set and tune")
    tune = _mapping(spec, "tune", path, key)
    for setting, values in tune.items():
        if not isinstance(values, list) or not values:
            _refuse(path, f"{key}.tune.{setting}", f"is {values!r}: give a list of values to choose among")
    only = spec.get("benchmarks", [])
    if missing := [b for b in only if b not in benchmarks]:
        _refuse(path, f"{key}.benchmarks", f"names {missing[0]!r}; there are {', '.join(benchmarks)}")
    return Method(
        name,
        spec.get("baseline"),
        tuple(_find(file, path, f"{key}.overlay") for file in overlay),
        _mapping(spec, "set", path, key),
        tune,
        tuple(only),
    )


def _baselines(module: Any, methods: Sequence[Method], path: str) -> Any:
    named = [method for method in methods if method.baseline is not None]
    if not named:
        return None
    if module is None:
        _refuse(
            path,
            f"methods.{named[0].name}.baseline",
            "needs a module of baselines: add baselines: bayesdual.strategies.baselines",
        )
    try:
        baselines = module_named(module)
    except ImportError as error:
        _refuse(path, "baselines", f"is {module}, which cannot be imported ({error})")
    for method in named:
        try:
            if "." in str(method.baseline):
                refuse_others(str(method.baseline))
            baselines.baseline_named(method.baseline)
        except NotAllowed as error:
            _refuse(path, f"methods.{method.name}.baseline", f"is not allowed: {error}")
        except ValueError as error:
            raise CommandLineError(f"{path}: methods.{method.name}: {error}") from None
    return baselines


def _renamed(content: Mapping[str, Any], old: str, new: str, path: str, above: str = "") -> dict[str, Any]:
    """A mapping in which a key has today's name."""
    if old in content and new in content:
        _refuse(path, f"{above}.{old}".lstrip("."), f"is what {new} was called, and both are there: give one")
    return {new if key == old else key: value for key, value in content.items()}


def _find(file: Any, path: str, key: str) -> str:
    """A configuration file: beside the comparison's, from here, or among those that ship with the package."""
    beside = Path(path).parent / str(file)
    if beside.is_file():
        return str(beside)
    try:
        return find_configs(["--config", str(file)])[1]
    except CommandLineError:
        _refuse(path, key, f"is {file}: there is no such file, here or among the configurations of the package")


def _entries(content: Mapping[str, Any], key: str, path: str) -> list[tuple[str, Any]]:
    entries = list(_mapping(content, key, path).items())
    if not entries:
        _refuse(path, key, "is empty: name at least one")
    return [(str(name), spec) for name, spec in entries]


def _mapping(content: Mapping[str, Any], key: str, path: str, above: str = "") -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        _refuse(path, f"{above}.{key}".lstrip("."), f"is {value!r}: it has to be a mapping")
    return value


def _seeds(value: Any, path: str, key: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(seed) is int for seed in value):
        _refuse(path, key, f"is {value!r}: give a list of whole numbers")
    if len(set(value)) < len(value):
        _refuse(path, key, f"is {value!r}: a seed stands there twice")
    return tuple(value)


def _check_keys(content: Mapping[str, Any], known: Sequence[str], path: str, above: str) -> None:
    for key in content:
        if key not in known:
            close = get_close_matches(str(key), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
            raise CommandLineError(f"{path}: {f'{above}.{key}'.lstrip('.')} is not a setting; {hint}")


def _refuse(path: str, key: str, what: str) -> NoReturn:
    raise CommandLineError(f"{path}: {key} {what}.")
