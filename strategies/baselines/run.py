"""A run of a baseline from a configuration: planned as plain values, and learned with the measures of ours."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, cast

import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
from avalanche.benchmarks.utils import ConstantSequence, DataAttribute, TaskLabels
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from jsonargparse import ArgumentParser
from lightning import seed_everything
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdual.learner import EVALUATION_BATCH, History, StreamDataModule
from bayesdual.measures import Evaluation, StreamMetric
from bayesdual.strategies.baselines.methods import baseline_named, icarl, joint
from bayesdual.stream import DatasetData, TensorData, classes_of, normalise

Tensors = tuple[Tensor, Tensor]
"""Inputs (N, ...), normalised, and labels (N,)."""


class StopWhenBroken(SupervisedPlugin):
    """Ends training that has diverged, which Avalanche would go on with."""

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        if not torch.isfinite(strategy.mb_output).all():
            place = f"experience {strategy.clock.train_exp_counter + 1}"
            raise FloatingPointError(f"the network's outputs are no longer finite in {place}: lower lr.")


OF_ALL = {"lr": 1e-3, "optimizer": "torch.optim.Adam", "batch_size": None}  # settings that every baseline takes
FROM_CONFIGURATION = {
    "epochs": ("data", "epochs"),
    "memory_size": ("model", "algorithm", "init_args", "memory_size"),
    "replay_batch_size": ("model", "algorithm", "init_args", "replay_batch_size"),
    "batch_size": ("data", "batch_size"),
}


def plan(name: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`learn`, as plain values: all that the run depends on, and nothing else.

    Args:
        name: A name in ``BASELINES``, or the dotted name of a function like those there.
        config: The benchmark's configuration, resolved (see :func:`bayesdual.configuration.resolve`).
        settings: The baseline's own, or what it is to take instead of the configuration's.

    Raises:
        ValueError: There is no such baseline or setting, or the configuration lacks what the baseline reads from it.
    """
    parameters = list(inspect.signature(baseline_named(name)).parameters.values())[1:]
    values = {p.name: p.default for p in parameters if p.name != "n_experiences"} | OF_ALL
    if unknown := [key for key in settings if key not in values]:
        close = get_close_matches(unknown[0], values, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(values)}."
        raise ValueError(f"{unknown[0]} is not a setting of {name}; {hint}")
    for key, path in FROM_CONFIGURATION.items():
        if key in values and key not in settings:
            values[key] = _look_up(config, path, name)
    values |= settings
    for key, value in values.items():
        whole = key in FROM_CONFIGURATION or key == "memory_epochs"
        if (whole and not (type(value) is int and value > 0)) or (key == "lr" and not value > 0):
            wanted = "a whole number" if whole else "a number"
            raise ValueError(f"{key} is {value!r}, which {name} cannot learn with: give {wanted} above 0.")
    return {
        "name": name,
        "settings": values,
        "network": config["model"]["network"],
        "benchmark": config["data"]["benchmark"],
        "evaluate_on": config["data"]["evaluate_on"],
        "seed": config["seed_everything"],
    }


def learn(
    name: str,
    settings: Mapping[str, Any],
    network: Mapping[str, Any],
    benchmark: Mapping[str, Any],
    evaluate_on: str,
    seed: int,
) -> dict[str, Any]:
    """Learns a stream by a baseline and evaluates after each experience.

    Args:
        name: See :func:`plan`.
        settings: The baseline's, and the learning rate, optimizer and batch size.
        network: Class path and arguments of the network.
        benchmark: Class path and arguments of what makes the benchmark.
        evaluate_on: The stream to evaluate on, ``test`` or ``valid``.
        seed: Seed of all that is random.

    Returns:
        The results of :class:`bayesdual.learner.History`, and ``exemplars``, the examples in memory at the end.

    Raises:
        ValueError: The baseline cannot learn this stream.
        FloatingPointError: The loss or the network is no longer finite.
    """
    seed_everything(seed, verbose=False)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    parser.add_class_arguments(StreamDataModule, "data")
    data = {"benchmark": benchmark, "evaluate_on": evaluate_on}
    made = parser.instantiate(parser.parse_object({"network": network, "data": data}))
    experiences, n_experiences = made.data.stream("train"), made.data.n_experiences
    if len({int(task) for e in experiences for task in getattr(e, "task_labels", [0])}) > 1:
        raise ValueError("the stream has task labels, which no baseline here uses: compare without them.")
    classes = [classes_of(e) for e in experiences]
    if baseline_named(name) is icarl and len(set(sum(classes, []))) < sum(map(len, classes)):
        raise ValueError("iCaRL learns new classes in each experience, but here they come again: leave it out.")
    train = [_tensors(data) for data in made.data.evaluation_data("train")]
    evaluation = [_tensors(data) for data in made.data.evaluation_data(evaluate_on)]
    if baseline_named(name) is joint:
        train = [(torch.cat([x for x, _ in train]), torch.cat([y for _, y in train]))]
    strategy = _build(name, dict(settings), made.network, n_experiences)
    history = History()
    history.start("total")
    for experience in _avalanche_stream(train):
        strategy.train(experience)
        with history.timing("evaluation"):
            history.record(_evaluate(strategy, evaluation))
        if not math.isfinite(history.nll):
            raise FloatingPointError("the last step of an experience broke the network: lower lr.")
    history.stop("total")
    return {**history.results(), "exemplars": _exemplars(strategy)}


def _look_up(config: Any, path: Sequence[str], name: str) -> Any:
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
        if config is None:
            raise ValueError(f"{name} needs {path[-1]}, and the configuration has no {'.'.join(path)}: set it.")
    return config


def _build(name: str, settings: dict[str, Any], network: nn.Module, n_experiences: int) -> SupervisedTemplate:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    module, _, optimizer = settings.pop("optimizer").rpartition(".")
    common = {
        "model": network,
        "optimizer": getattr(import_module(module), optimizer)(network.parameters(), lr=settings.pop("lr")),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": settings.pop("batch_size"),
        "eval_mb_size": EVALUATION_BATCH,
        "device": device,
        "evaluator": EvaluationPlugin(),
    }
    if "n_experiences" in inspect.signature(baseline_named(name)).parameters:
        settings["n_experiences"] = n_experiences
    strategy = baseline_named(name)(common, **settings)
    strategy.plugins.append(StopWhenBroken())
    return strategy


def _tensors(data: TensorData | DatasetData) -> Tensors:
    return normalise(data.inputs(torch.arange(len(data))), data.mean, data.std), data.y


def _avalanche_stream(tensors: Iterable[Tensors]) -> list[Any]:
    datasets = []
    for x, y in tensors:
        examples = Examples(x, y.tolist())
        labels = cast(Any, examples.y)  # a list, as Avalanche itself gives one
        attributes = [DataAttribute(labels, "targets"), TaskLabels(ConstantSequence(0, len(y)))]
        datasets.append(TaskAwareSupervisedClassificationDataset([examples], data_attributes=attributes))
    benchmark = cast(Any, with_classes_timeline(benchmark_from_datasets(train=datasets)))
    experiences = list(benchmark.train_stream)
    benchmark.n_classes_per_exp = [len(e.classes_in_this_experience) for e in experiences]
    benchmark.classes_order = [c for e in experiences for c in e.classes_in_this_experience]
    for experience in experiences:
        experience.benchmark = benchmark  # where iCaRL looks for these
    return experiences


@dataclass(frozen=True, eq=False)
class Examples(Dataset):
    """Inputs (N, ...) and as many labels, which are ints: iCaRL mixes them with its own, which are."""

    x: Tensor
    y: list[int]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.x[i], self.y[i]


def _evaluate(strategy: SupervisedTemplate, evaluation: Sequence[Tensors]) -> Evaluation:
    metric = StreamMetric(len(evaluation)).to(strategy.device)
    strategy.model.eval()
    with torch.no_grad():
        for i, (x, y) in enumerate(evaluation):
            for inputs, labels in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True):
                logits = strategy.model(inputs.to(strategy.device))
                metric.update(logits.softmax(1), labels.to(strategy.device), i)
    return metric.compute()


def _exemplars(strategy: SupervisedTemplate) -> int:
    """The examples that a strategy keeps, wherever it has them."""
    kept, parts = 0, cast(list[Any], [strategy, *strategy.plugins])
    for part in parts:
        if hasattr(part, "storage_policy"):
            kept += len(part.storage_policy.buffer)
        kept += sum(len(group) for name in ("buffers", "x_memory") for group in getattr(part, name, ()))
    return kept
