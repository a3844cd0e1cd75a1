"""A run of a baseline from a configuration: planned as plain values, and learned with the measures of ours."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, TypeGuard, cast

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
from bayesdual.strategies.baselines.carried import ExemplarBytes, check_budget, exemplars, memory_bytes
from bayesdual.strategies.baselines.closed_form import ClosedForm, RandomRidge
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


OF_ALL = {"lr": 1e-3, "optimizer": "torch.optim.Adam", "batch_size": None}  # settings of all that train a network
ALGORITHM = ("model", "algorithm", "init_args")
FROM_CONFIGURATION = {
    "epochs": ("data", "epochs"),
    "memory_size": (*ALGORITHM, "memory_size"),
    "replay_batch_size": (*ALGORITHM, "replay_batch_size"),
    "batch_size": ("data", "batch_size"),
}
FROM_STREAM = ("n_experiences", "n_inputs", "n_classes", "seed")
LEFT_OPEN = {"memory_size": 200}  # what ours has, too, where the configuration says nothing
BOUGHT = ("memory_size", "features")  # which follow from memory_bytes, where that is given
WHOLE = (*FROM_CONFIGURATION, *BOUGHT, "memory_bytes", "memory_epochs")
POSITIVE = ("lr", "ridge_lambda")


def plan(name: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`learn`, as plain values: all that the run depends on, and nothing else.

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
    made = baseline_named(name)
    parameters = [p for p in list(inspect.signature(made).parameters.values()) if p.name not in FROM_STREAM]
    values = {p.name: p.default for p in (parameters if _in_closed_form(made) else parameters[1:])}
    values |= {} if _in_closed_form(made) else OF_ALL
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
        "network": None if _in_closed_form(made) else config["model"]["network"],
        "benchmark": config["data"]["benchmark"],
        "evaluate_on": config["data"]["evaluate_on"],
        "seed": config["seed_everything"],
    }


def _in_closed_form(made: Callable[..., Any]) -> TypeGuard[type[ClosedForm]]:
    return isinstance(made, type) and issubclass(made, ClosedForm)


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


def learn(
    name: str,
    settings: Mapping[str, Any],
    network: Mapping[str, Any] | None,
    benchmark: Mapping[str, Any],
    evaluate_on: str,
    seed: int,
) -> dict[str, Any]:
    """Learns a stream by a baseline and evaluates after each experience.

    Args:
        name: See :func:`plan`.
        settings: The baseline's; for one that trains a network also the learning rate, optimizer and batch size.
        network: Class path and arguments of the network; None if it has none.
        benchmark: Class path and arguments of what makes the benchmark.
        evaluate_on: The stream to evaluate on, ``test`` or ``valid``.
        seed: Seed of all that is random.

    Returns:
        The results of :class:`bayesdual.learner.History`, ``exemplars``, the examples in memory at the end, and
        ``memory_bytes``, by part, what is carried beyond the network and its optimizer.

    Raises:
        ValueError: The baseline cannot learn this stream.
        FloatingPointError: The loss or the network is no longer finite.
    """
    seed_everything(seed, verbose=False)
    made = baseline_named(name)
    network_, data = _objects(network, {"benchmark": benchmark, "evaluate_on": evaluate_on})
    _check_stream(made, data)
    parts = data.evaluation_data("train")
    train = [_tensors(part) for part in parts]
    evaluation = [_tensors(part) for part in data.evaluation_data(evaluate_on)]
    stream = {
        "n_experiences": data.n_experiences,
        "n_inputs": train[0][0][0].numel(),
        "n_classes": 1 + max(int(y.max()) for _, y in train),
        "seed": seed,
    }
    if made is joint:
        train = [(torch.cat([x for x, _ in train]), torch.cat([y for _, y in train]))]
    if _in_closed_form(made):
        running = _start_closed_form(made, dict(settings), stream, train)
    else:
        of_exemplar = ExemplarBytes.of(made, parts[0].inputs(torch.arange(1)), stream["n_classes"])
        running = _start_strategy(made, dict(settings), stream, train, network_, of_exemplar)
    history = History()
    history.start("total")
    for _ in running.experiences:
        with history.timing("evaluation"):
            history.record(_evaluate(running.logits, evaluation))
        if not math.isfinite(history.nll):
            raise FloatingPointError("the last step of an experience broke the network: lower lr.")
    history.stop("total")
    return {**history.results(), "exemplars": running.exemplars(), "memory_bytes": running.memory_bytes()}


class Running(NamedTuple):
    """A baseline that learns a stream.

    Attributes:
        experiences: Learns the next experience each time that it is asked for its next item.
        logits: Of inputs (B, ...), shape (B, C), by what was learned last.
        exemplars: The examples in memory.
        memory_bytes: What is carried, by part.
    """

    experiences: Iterator[None]
    logits: Callable[[Tensor], Tensor]
    exemplars: Callable[[], int]
    memory_bytes: Callable[[], dict[str, int]]


def _start_strategy(
    made: Callable[..., SupervisedTemplate],
    settings: dict[str, Any],
    stream: Mapping[str, int],
    train: Sequence[Tensors],
    network: nn.Module | None,
    of_exemplar: ExemplarBytes,
) -> Running:
    if network is None:
        raise ValueError("Avalanche's strategies train a network, and none is given.")
    if "memory_bytes" in settings:
        settings["memory_size"] = of_exemplar.bought(settings.pop("memory_bytes"), stream["n_classes"])
    strategy = _build(made, settings, network, stream)

    def experiences() -> Iterator[None]:
        for experience in _avalanche_stream(train):
            strategy.train(experience)
            yield

    def logits(x: Tensor) -> Tensor:
        strategy.model.eval()  # a GDumb's is another after each experience
        return strategy.model(x.to(strategy.device)).cpu()

    return Running(experiences(), logits, partial(exemplars, strategy), partial(memory_bytes, strategy, of_exemplar))


def _start_closed_form(
    made: type[ClosedForm], settings: dict[str, Any], stream: Mapping[str, int], train: Sequence[Tensors]
) -> Running:
    n_classes = stream["n_classes"]
    if "memory_bytes" in settings:
        budget = settings.pop("memory_bytes")
        check_budget(budget, RandomRidge.bytes_of(n_classes, n_classes), n_classes, "random feature")
        settings["features"] = RandomRidge.features_within(budget, n_classes)
    method = made(**settings, **_taken(made, stream))
    scores: Callable[[Tensor], Tensor] = lambda x: x  # noqa: E731

    def experiences() -> Iterator[None]:
        nonlocal scores
        for x, y in train:
            method.add(x.flatten(1), y)
            scores = method.classifier()
            yield

    return Running(experiences(), lambda x: scores(x.flatten(1)), lambda: 0, method.memory_bytes)


def _objects(network: Mapping[str, Any] | None, data: Mapping[str, Any]) -> tuple[nn.Module | None, StreamDataModule]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module | None)
    parser.add_class_arguments(StreamDataModule, "data")
    made = parser.instantiate(parser.parse_object({"network": network, "data": data}))
    return made.network, made.data


def _check_stream(made: Callable[..., Any], data: StreamDataModule) -> None:
    experiences = data.stream("train")
    if len({int(task) for e in experiences for task in getattr(e, "task_labels", [0])}) > 1:
        raise ValueError("the stream has task labels, which no baseline here uses: compare without them.")
    classes = [classes_of(e) for e in experiences]
    if made is icarl and len(set(sum(classes, []))) < sum(map(len, classes)):
        raise ValueError("iCaRL learns new classes in each experience, but here they come again: leave it out.")


def _build(
    made: Callable[..., SupervisedTemplate], settings: dict[str, Any], network: nn.Module, stream: Mapping[str, int]
) -> SupervisedTemplate:
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
    strategy = made(common, **settings, **_taken(made, stream))
    strategy.plugins.append(StopWhenBroken())
    return strategy


def _taken(made: Callable[..., Any], stream: Mapping[str, int]) -> dict[str, int]:
    """What a baseline asks to be told of the stream."""
    return {key: stream[key] for key in inspect.signature(made).parameters if key in FROM_STREAM}


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


@torch.no_grad()
def _evaluate(logits: Callable[[Tensor], Tensor], evaluation: Sequence[Tensors]) -> Evaluation:
    metric = StreamMetric(len(evaluation))
    for i, (x, y) in enumerate(evaluation):
        for inputs, labels in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True):
            metric.update(logits(inputs).softmax(1), labels, i)
    return metric.compute()
