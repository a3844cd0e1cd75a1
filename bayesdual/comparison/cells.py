"""From what is compared to its runs: which settings each has, and which are chosen once they are tried."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from bayesdual.comparison.plan import Benchmark, Comparison, Method
from bayesdual.comparison.store import Cell
from bayesdual.configuration import CommandLineError, Setting, resolve

OURS = "bayesdual.comparison.learn"


def cell_of(
    comparison: Comparison, benchmark: Benchmark, method: Method, tried: Mapping[str, Any], seed: int, tuning: bool
) -> Cell:
    """The run of a method on a benchmark.

    Args:
        comparison: What is compared.
        benchmark: The benchmark.
        method: The method.
        tried: Values of the settings that the method tunes.
        seed: Seed of all that is random.
        tuning: Whether to learn without the validation part, and evaluate on it; else on the test stream.

    Raises:
        CommandLineError: The settings do not fit together.
    """
    of_benchmark = _settings(benchmark.settings, f"{comparison.source}: benchmarks.{benchmark.name}.set")
    shared: dict[str, Any] = {"seed_everything": seed}
    if tuning:
        shared |= {"data.benchmark.init_args.validation": comparison.validation, "data.evaluate_on": "valid"}
    of_all = _settings(shared, f"{comparison.source}: tuning" if tuning else comparison.source)
    values = {**method.settings, **tried}
    if method.baseline is None:
        of_method = _settings(values, f"{comparison.source}: methods.{method.name}")
        config = resolve(benchmark.config, *of_benchmark, *method.overlay, *of_method, *of_all)
        spec: dict[str, Any] = {"learn": OURS, "arguments": {"config": config}}
    else:
        given = yaml.safe_dump([[s.key, s.value, s.file] for s in (*of_benchmark, *of_all)])
        config = deepcopy(_resolved_once(benchmark.config, Path(benchmark.config).read_text(), given))
        try:
            arguments = comparison.baselines.plan(method.baseline, config, values)
        except ValueError as error:
            raise CommandLineError(f"{comparison.source}: methods.{method.name}: {error}") from None
        spec = {"learn": f"{comparison.baselines.__name__}.learn", "arguments": arguments}
    _refuse_other_likelihoods(config, comparison.source)
    spec["threads"] = config["threads"] or 1
    title = [f"{method.name} on {benchmark.name}", *(f"{k.rpartition('.')[2]} {v}" for k, v in tried.items())]
    return Cell(", ".join([*title, f"seed {seed}", *(["tuning"] if tuning else [])]), spec)


def _refuse_other_likelihoods(config: Mapping[str, Any], source: str) -> None:
    given = config["model"]["algorithm"].get("init_args", {}).get("likelihood", "categorical")
    if given != "categorical":
        name = given if isinstance(given, str) else given.get("class_path", given)
        raise CommandLineError(
            f"{source}: model.algorithm.init_args.likelihood is {name}, and compare is of accuracies, of classes by "
            "softmax: compare such runs by `python -m bayesdual inspect RUN RUN ...`."
        )


@lru_cache(maxsize=1024)
def _resolved_once(path: str, content: str, settings: str) -> dict[str, Any]:
    """A file with this content, and settings as YAML says them: what every baseline of a benchmark learns from."""
    return resolve(path, *(Setting(*setting) for setting in yaml.safe_load(settings)))


def _settings(values: Mapping[str, Any], source: str) -> list[Setting]:
    return [Setting(key, value, source) for key, value in values.items()]


def tuning_cells(
    comparison: Comparison, benchmark: Benchmark, method: Method
) -> list[tuple[dict[str, Any], list[Cell]]]:
    """What a method may choose among on a benchmark, each with the runs that show how good it is there."""
    grid = method.grid if len(method.grid) > 1 else []
    return [
        (tried, [cell_of(comparison, benchmark, method, tried, s, True) for s in comparison.tuning_seeds])
        for tried in grid
    ]


def choose(results: Sequence[tuple[dict[str, Any], list[dict[str, Any] | None]]]) -> dict[str, Any]:
    """The settings of the highest mean accuracy on the validation stream; of equals the first.

    Args:
        results: The settings tried, each with the results of its runs: None for one that diverged, which loses.
    """

    def worth(tried: tuple[dict[str, Any], list[dict[str, Any] | None]]) -> float:
        runs = tried[1]
        return statistics.mean(r["average_accuracy"] for r in runs if r) if all(runs) else float("-inf")

    return max(results, key=worth)[0]


def at_edge(method: Method, chosen: Mapping[str, Any]) -> bool:
    """Whether a number that was chosen is the smallest or largest of those tried."""
    for key, values in method.tune.items():
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numbers and len(values) > 1 and chosen[key] in (min(values), max(values)):
            return True
    return False
