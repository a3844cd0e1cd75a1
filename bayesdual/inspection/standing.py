"""Where a stream stands, whoever the host: its figures, its results, and what is left of it in a run directory."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bayesdual import __version__, measures, sources
from bayesdual.algorithm import BayesDual
from bayesdual.files import write_json, write_whole
from bayesdual.inspection.answer_figures import (
    certainty_figure,
    classes_figure,
    confusion_figure,
    reliability_figure,
)
from bayesdual.inspection.figures import (
    Figures,
    Picture,
    accuracy_figure,
    picture,
    progress_figure,
    save,
)
from bayesdual.inspection.gap import gap_figure
from bayesdual.inspection.memory_figures import figures_of_memory
from bayesdual.inspection.runs import MAPS
from bayesdual.learner import History, Learner
from bayesdual.posterior import Posterior

VERSIONS_OF = ("torch", "lightning", "avalanche-lib")


@dataclass(frozen=True)
class Standing:
    """What is known of a stream after an experience.

    Attributes:
        history: Its evaluations and its clocks.
        algorithm: What remembers; None where another method learns.
        evaluation: The latest, if there was one.
        class_names: By label, where the benchmark has any.
        experiences_learned: How many.
        evaluated_on: The name of the stream of the evaluations.
    """

    history: History
    algorithm: BayesDual | None
    evaluation: measures.Evaluation | measures.NumberEvaluation | None
    class_names: Sequence[str] | None
    experiences_learned: int
    evaluated_on: str

    @classmethod
    def of(cls, learner: Learner) -> Standing:
        """That of a stream in Lightning."""
        stream, names = learner.stream, list(learner.classes) or None
        evaluation = learner.latest_evaluation
        return cls(learner.history, learner.algorithm, evaluation, names, stream.experience, stream.evaluate_on)


def stream_figures(standing: Standing) -> Figures:
    """All figures of where a stream stands, by their tags in TensorBoard; the last part is a file's name."""
    matrix, over_stream = standing.history.accuracy, standing.history.over_stream
    evaluation, names, score = standing.evaluation, standing.class_names, standing.history.score
    found = {
        f"forgetting/{score.key}_matrix": accuracy_figure(matrix, score),
        f"forgetting/{score.key}_over_time": progress_figure(matrix, score),
    }
    if evaluation is not None and "confusion" in evaluation:
        found["classes/accuracy_of_classes"] = classes_figure(evaluation["confusion"], names)
        found["classes/confusion"] = confusion_figure(evaluation["confusion"], names)
        found["certainty/reliability"] = reliability_figure(evaluation["reliability"])
    if standing.history.on_old:
        found["forgetting/stability_gap"] = gap_figure(standing.history.on_old)
    if over_stream and score == measures.ACCURACY:
        found["certainty/certainty"] = certainty_figure(over_stream)
    if (algorithm := standing.algorithm) is not None:
        remembered = figures_of_memory(algorithm.memory.exemplars, algorithm.memory_map, names)
        found |= {f"memory/{name}": figure for name, figure in remembered.items()}
    return found


def pictures_of(standing: Standing) -> dict[str, Picture]:
    """The same as pixels."""
    return {tag: picture(figure) for tag, figure in stream_figures(standing).items()}


def save_pictures(directory: Path, pictures: Mapping[str, Picture]) -> None:
    """Writes pictures as PNG, by the last part of their tags."""
    for tag, pixels in pictures.items():
        write_whole(directory / f"{tag.rpartition('/')[2]}.png", partial(save, pixels))


def by_experience(standing: Standing) -> dict[str, float]:
    """Scalars after an experience."""
    history, algorithm, key = standing.history, standing.algorithm, standing.history.score.key
    values = {
        f"average_{key}_seen": measures.average_seen_accuracy(history.accuracy),
        f"{key}_of_the_new": history.accuracy[-1][len(history.accuracy) - 1],
        "backward_transfer": measures.backward_transfer(history.score.gains(history.accuracy)),
        "forgetting": measures.forgetting(history.score.gains(history.accuracy)),
        **{f"seconds_{name}": value for name, value in history.seconds.items()},
    }
    if old := history.accuracy[-1][: len(history.accuracy) - 1]:
        values[f"{key}_of_the_old"] = measures.average_accuracy([old])
    if algorithm is not None:
        values |= {f"std_over_prior/{name}": share for name, share in from_prior(algorithm.posterior).items()}
        values |= {"exemplars": float(len(algorithm.memory)), "examples_seen": float(algorithm.memory.examples_seen)}
        values |= {f"bytes_of_{part}": float(n) for part, n in algorithm.memory_bytes().items()}
    return values


def from_prior(posterior: Posterior | None) -> dict[str, float]:
    """Mean standard deviation of each parameter, as a share of the prior's: 1 where the data have said nothing."""
    if posterior is None or posterior.prior_precision <= 0:
        return {}
    return {
        name: float((posterior.prior_precision / precision.float()).sqrt().mean())
        for name, precision in posterior.precision.items()
    }


def run_results(standing: Standing) -> dict[str, Any]:
    """All that ``results.json`` holds."""
    algorithm = standing.algorithm
    return {
        **standing.history.results(),
        "experiences_learned": standing.experiences_learned,
        "memory_size": 0 if algorithm is None else len(algorithm.memory),
        "memory_budget": 0 if algorithm is None else algorithm.memory.budget,
        "memory_bytes": {} if algorithm is None else algorithm.memory_bytes(),
        "evaluated_on": standing.evaluated_on,
        "class_names": standing.class_names,
        "seed": torch.initial_seed(),
        "versions": {"bayesdual": __version__} | {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        "code": sources.digest_of_all(),
    }


def leave(directory: Path, standing: Standing, posterior: Posterior | None) -> dict[str, Any]:
    """Writes ``results.json``, the memory and the posterior, and returns the results."""
    results = run_results(standing)
    write_json(directory / "results.json", results)
    if standing.algorithm is not None and len(standing.algorithm.memory):
        standing.algorithm.memory.save(directory / "memory.safetensors")
    if posterior is not None:
        posterior.save(directory / "posterior.safetensors")
    return results


def save_map(directory: Path, standing: Standing) -> None:
    """Writes the memory map of the experience learned last, where there is one."""
    if standing.algorithm is not None and standing.algorithm.memory_map is not None:
        (directory / MAPS).mkdir(parents=True, exist_ok=True)
        path = directory / MAPS / f"experience_{len(standing.history.accuracy)}.safetensors"
        standing.algorithm.memory_map.save(path)
