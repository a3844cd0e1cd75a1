"""A run of a baseline: it learns a stream, by a strategy of Avalanche's or in closed form, with the measures of ours.

Data is handed over as float tensors, normalised beforehand: the fastest that Avalanche's loaders can be given.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, cast

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
from bayesdual.strategies.baselines.closed_form import ClosedForm, LowRankLDA, RandomRidge
from bayesdual.strategies.baselines.methods import baseline_named, icarl, joint
from bayesdual.strategies.baselines.settings import FROM_STREAM, in_closed_form
from bayesdual.stream import DatasetData, Inputs, TensorData, classes_of, experience_data, normalise

Tensors = tuple[Tensor, Tensor]
"""Inputs (N, ...), normalised, and labels (N,)."""


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
    baseline = baseline_named(name)
    network_, data = _objects(network, {"benchmark": benchmark, "evaluate_on": evaluate_on})
    _check_stream(baseline, data)
    parts = data.evaluation_data("train")
    train = [_tensors(part) for part in parts]
    evaluation = [_tensors(part) for part in data.evaluation_data(evaluate_on)]
    stream = {
        "n_experiences": data.n_experiences,
        "n_inputs": train[0][0][0].numel(),
        "n_classes": 1 + max(int(y.max()) for _, y in train),
        "seed": seed,
    }
    if baseline is joint:
        train = [(torch.cat([x for x, _ in train]), torch.cat([y for _, y in train]))]
    if in_closed_form(baseline):
        running = _start_closed_form(baseline, dict(settings), stream, train)
    else:
        of_exemplar = ExemplarBytes.of(baseline, parts[0].inputs(torch.arange(1)), stream["n_classes"])
        running = _start_strategy(baseline, dict(settings), stream, train, network_, of_exemplar)
    history = History()
    history.start("total")
    for _ in running.experiences:
        with history.timing("evaluation"):
            history.record(_evaluate(running.logits, evaluation, data.n_experiences))
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


# ---- A strategy of Avalanche's -----------------------------------------------------------------------------


def _start_strategy(
    baseline: Callable[..., SupervisedTemplate],
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
    strategy = _build(baseline, settings, network, stream)

    def experiences() -> Iterator[None]:
        for experience in _avalanche_stream(train):
            strategy.train(experience)
            yield

    def logits(x: Tensor) -> Tensor:
        strategy.model.eval()  # a GDumb's is another after each experience
        return strategy.model(x.to(strategy.device)).cpu()

    return Running(experiences(), logits, partial(exemplars, strategy), partial(memory_bytes, strategy, of_exemplar))


def _build(
    baseline: Callable[..., SupervisedTemplate], settings: dict[str, Any], network: nn.Module, stream: Mapping[str, int]
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
    strategy = baseline(common, **settings, **_told_of(baseline, stream))
    strategy.plugins.append(StopWhenBroken())
    return strategy


class StopWhenBroken(SupervisedPlugin):
    """Ends training that has diverged, which Avalanche would go on with."""

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        if not torch.isfinite(strategy.mb_output).all():
            place = f"experience {strategy.clock.train_exp_counter + 1}"
            raise FloatingPointError(f"the network's outputs are no longer finite in {place}: lower lr.")


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


# ---- A method in closed form -------------------------------------------------------------------------------


def _start_closed_form(
    baseline: type[ClosedForm], settings: dict[str, Any], stream: Mapping[str, int], train: Sequence[Tensors]
) -> Running:
    n_classes = stream["n_classes"]
    if "memory_bytes" in settings and baseline is RandomRidge:
        budget = settings.pop("memory_bytes")
        check_budget(budget, RandomRidge.bytes_of(n_classes, n_classes), n_classes, "random feature")
        settings["features"] = RandomRidge.features_within(budget, n_classes)
    elif "memory_bytes" in settings and baseline is LowRankLDA:
        budget = settings.pop("memory_bytes")
        settings["rank"] = LowRankLDA.rank_within(budget, stream["n_inputs"], n_classes, settings["bits"])
        if settings["rank"] < 0:
            raise ValueError(f"memory_bytes is {budget}, which has no room for the means of {n_classes} classes.")
    method = baseline(**settings, **_told_of(baseline, stream))
    scores: Callable[[Tensor], Tensor] = lambda x: x  # noqa: E731

    def experiences() -> Iterator[None]:
        nonlocal scores
        for x, y in train:
            method.add(x.flatten(1), y)
            scores = method.classifier()
            yield

    return Running(experiences(), lambda x: scores(x.flatten(1)), lambda: 0, method.memory_bytes)


# ---- What both are given, and how they are measured --------------------------------------------------------


def _objects(network: Mapping[str, Any] | None, data: Mapping[str, Any]) -> tuple[nn.Module | None, StreamDataModule]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module | None)
    parser.add_class_arguments(StreamDataModule, "data")
    objects = parser.instantiate(parser.parse_object({"network": network, "data": data}))
    return objects.network, objects.data


def _check_stream(baseline: Callable[..., Any], data: StreamDataModule) -> None:
    experiences = data.stream("train")
    if len({int(task) for e in experiences for task in getattr(e, "task_labels", [0])}) > 1:
        raise ValueError("the stream has task labels, which no baseline here uses: compare without them.")
    if (parts := Inputs.of(experience_data(experiences[0])).parts) is not None:
        raise ValueError(f"an input of the stream is {parts}, and baselines take one tensor: compare without them.")
    classes = [classes_of(e) for e in experiences]
    if baseline is icarl and len(set(sum(classes, []))) < sum(map(len, classes)):
        raise ValueError("iCaRL learns new classes in each experience, but here they come again: leave it out.")


def _told_of(baseline: Callable[..., Any], stream: Mapping[str, int]) -> dict[str, int]:
    """What a baseline asks to be told of the stream."""
    return {key: stream[key] for key in inspect.signature(baseline).parameters if key in FROM_STREAM}


def _tensors(data: TensorData | DatasetData) -> Tensors:
    return normalise(data.inputs(torch.arange(len(data))), data.mean, data.std), data.y


@torch.no_grad()
def _evaluate(logits: Callable[[Tensor], Tensor], evaluation: Sequence[Tensors], n_experiences: int) -> Evaluation:
    metric = StreamMetric(n_experiences)
    for i, (x, y) in enumerate(evaluation):
        for inputs, labels in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True):
            metric.update(logits(inputs).softmax(1), labels, i)
    return metric.compute()
