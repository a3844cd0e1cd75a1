"""What a run of a baseline depends on: its own settings, and what it reads from the benchmark's configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeGuard

from bayesdual.strategies.baselines.closed_form import ClosedForm
from bayesdual.strategies.baselines.methods import baseline_named

OF_ALL = {"lr": 1e-3, "optimizer": "torch.optim.Adam", "batch_size": None}  # settings of all that train a network
ALGORITHM = ("model", "algorithm", "init_args")
FROM_CONFIGURATION = {
    "epochs": ("data", "epochs"),
    "memory_size": (*ALGORITHM, "memory_size"),
    "replay_batch_size": (*ALGORITHM, "replay_batch_size"),
    "batch_size": ("data", "batch_size"),
    "memory_bytes": (*ALGORITHM, "memory_bytes"),
}
FROM_STREAM = ("n_experiences", "n_inputs", "n_classes", "seed")
LEFT_OPEN = {"memory_size": 200}  # what ours has, too, where the configuration says nothing
BOUGHT = ("memory_size", "features", "rank")  # which follow from memory_bytes, where that is given
WHOLE = (*FROM_CONFIGURATION, *BOUGHT, "bits", "memory_bytes", "memory_epochs")
POSITIVE = ("lr", "ridge_lambda")


def plan(name: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`bayesdual.strategies.baselines.learn`: plain values, all that a run depends on.

    ``memory_bytes``, a setting of all that have a memory size or a number of features, stands in the place of these,
    which then follow from it; so it does in the configuration, where the baseline's own settings say nothing of either.

    Args:
        name: A name in ``BASELINES``, or the dotted name of a function or class like those there.
        config: The benchmark's configuration, resolved (see :func:`bayesdual.configuration.resolve`).
        settings: The baseline's own, or what it is to take instead of the configuration's.

    Raises:
        ValueError: There is no such baseline or setting, settings contradict each other, or the configuration lacks
            what the baseline reads from it.
    """
    baseline = baseline_named(name)
    parameters = [p for p in list(inspect.signature(baseline).parameters.values()) if p.name not in FROM_STREAM]
    values = {p.name: p.default for p in (parameters if in_closed_form(baseline) else parameters[1:])}
    values |= {} if in_closed_form(baseline) else OF_ALL
    bought = next((key for key in BOUGHT if key in values), None)
    known = [*values, "memory_bytes"] if bought else list(values)
    if unknown := [key for key in settings if key not in known]:
        close = get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}."
        raise ValueError(f"{unknown[0]} is not a setting of {name}; {hint}")
    if bought:
        values |= _budget(bought, values.pop(bought), config, settings)
    for key, path in FROM_CONFIGURATION.items():
        if key in values and key not in settings:
            values[key] = _look_up(config, path, name)
    values |= settings
    if missing := [key for key, value in values.items() if value is inspect.Parameter.empty]:
        raise ValueError(f"{name} needs {missing[0]}: give it, or memory_bytes, in set.")
    _check(name, values)
    return {
        "name": name,
        "settings": values,
        "network": None if in_closed_form(baseline) else config["model"]["network"],
        "benchmark": config["data"]["benchmark"],
        "evaluate_on": config["data"]["evaluate_on"],
        "seed": config["seed_everything"],
    }


def in_closed_form(baseline: Callable[..., Any]) -> TypeGuard[type[ClosedForm]]:
    """Whether a baseline is a class of ours that trains no network, and no function that builds a strategy."""
    return isinstance(baseline, type) and issubclass(baseline, ClosedForm)


def _budget(bought: str, default: Any, config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What says how much is kept: ``memory_bytes`` or, by its name, the number that bytes would buy."""
    if bought in settings and "memory_bytes" in settings:
        raise ValueError(f"{bought} and memory_bytes are both given, and one follows from the other: give one.")
    of_configuration = config["model"]["algorithm"].get("init_args", {}).get("memory_bytes")
    if "memory_bytes" in settings or (bought not in settings and of_configuration is not None):
        return {"memory_bytes": of_configuration}
    return {bought: default}


def _look_up(config: Any, path: Sequence[str], name: str) -> Any:
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    value = LEFT_OPEN.get(path[-1]) if config is None else config
    if value is None:
        raise ValueError(f"{name} needs {path[-1]}, and the configuration has no {'.'.join(path)}: set it.")
    return value


def _check(name: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        wanted = None
        if key in WHOLE and not (type(value) is int and value > 0):
            wanted = "a whole number above 0"
        elif key in POSITIVE and not (number and value > 0):
            wanted = "a number above 0"
        elif key == "shrinkage" and not (number and 0 < value <= 1):
            wanted = "a share above 0, at most 1"
        if wanted:
            raise ValueError(f"{key} is {value!r}, which {name} cannot learn with: give {wanted}.")
