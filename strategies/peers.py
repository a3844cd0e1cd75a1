"""Avalanche's strategies as peers in a comparison: with the model, stream, epochs, memory and measures of ours.

A peer is a function that builds a strategy. Its first argument is what every strategy of Avalanche's takes; the names
of the others say what it reads from the benchmark's configuration (``FROM_CONFIGURATION``: epochs, memory size, replay
batch), or what a comparison may set or tune besides. What it does not take makes no other run: a comparison over
memories runs ``joint`` once.

Quirks of Avalanche 0.6.0 that would be unfair to the peers are made good here:

- DER and ER-ACE do not replay while the memory holds fewer examples than their replay batch: the batch shrinks to it.
- ER-ACE's loss is NaN once a probability underflows (0 log 0): the same loss is computed from log-probabilities.
- GDumb trains a copy of the model, so that the model it was given stays at the first experience: the copy is evaluated.
- iCaRL rounds its share of the memory up for each class, so that it may keep some more than the memory size.

Data is handed over as float tensors, normalised beforehand: the fastest that Avalanche's loaders can be given.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import avalanche.training as training
import torch
import torch.nn.functional as F
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
from avalanche.benchmarks.utils import ConstantSequence, DataAttribute, TaskLabels
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.templates import SupervisedTemplate
from jsonargparse import ArgumentParser
from lightning import seed_everything
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdual.data import EVALUATION_BATCH, StreamDataModule
from bayesdual.history import History
from bayesdual.metrics import StreamMetric
from bayesdual.scenarios.data import normalise
from bayesdual.stream import DatasetData, TensorData, classes_of

Common = dict[str, Any]
"""What every strategy takes: model, optimizer, batch sizes, epochs, device, evaluator."""

Tensors = tuple[Tensor, Tensor]
"""Inputs (N, ...), normalised, and labels (N,)."""

# ---------------------------------------------------------------------------------------------------------- the peers


def naive(common: Common, epochs: int) -> SupervisedTemplate:
    """Plain training: what is forgotten without help."""
    return training.Naive(**common, train_epochs=epochs)


def joint(common: Common, epochs: int) -> SupervisedTemplate:
    """Plain training, on all experiences at once: what there is to reach."""
    return training.Naive(**common, train_epochs=epochs)


def replay(common: Common, epochs: int, memory_size: int, replay_batch_size: int) -> SupervisedTemplate:
    """Experience replay (Chaudhry et al., 2019), the memory balanced over experiences."""
    plugin = ReplayPlugin(memory_size, batch_size_mem=min(replay_batch_size, memory_size))
    return training.Naive(**common, train_epochs=epochs, plugins=[plugin])


def der(
    common: Common, epochs: int, memory_size: int, replay_batch_size: int, alpha: float = 0.1, beta: float = 0.5
) -> SupervisedTemplate:
    """DER++ (Buzzega et al., NeurIPS 2020): ``alpha`` weighs logits in replay, ``beta`` labels."""
    return training.DER(
        **common,
        train_epochs=epochs,
        mem_size=memory_size,
        batch_size_mem=replay_batch_size,
        alpha=alpha,
        beta=beta,
        plugins=[ReplayWhatThereIs(replay_batch_size)],
    )


def er_ace(common: Common, epochs: int, memory_size: int, replay_batch_size: int) -> SupervisedTemplate:
    """ER-ACE (Caccia et al., ICLR 2022): new examples compete among the new classes only."""
    strategy = training.ER_ACE(
        **common,
        train_epochs=epochs,
        mem_size=memory_size,
        batch_size_mem=replay_batch_size,
        plugins=[ReplayWhatThereIs(replay_batch_size)],
    )
    strategy.ace_criterion = asymmetric_cross_entropy
    return strategy


def gdumb(common: Common, memory_size: int, memory_epochs: int = 30) -> SupervisedTemplate:
    """GDumb (Prabhu et al., ECCV 2020): training from scratch on the memory, for ``memory_epochs``."""
    return training.GDumb(**common, train_epochs=memory_epochs, mem_size=memory_size)


def a_gem(
    common: Common, epochs: int, memory_size: int, replay_batch_size: int, n_experiences: int
) -> SupervisedTemplate:
    """A-GEM (Chaudhry et al., ICLR 2019): gradients projected so that the memory's loss does not rise."""
    return training.AGEM(
        **common,
        train_epochs=epochs,
        patterns_per_exp=max(memory_size // n_experiences, 1),
        sample_size=max(replay_batch_size, n_experiences),  # shared out over the experiences, rounded down
    )


def ewc(common: Common, epochs: int, ewc_lambda: float = 100.0) -> SupervisedTemplate:
    """Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), a penalty for each experience."""
    return training.EWC(**common, train_epochs=epochs, ewc_lambda=ewc_lambda)


def si(common: Common, epochs: int, si_lambda: float = 1.0) -> SupervisedTemplate:
    """Synaptic intelligence (Zenke et al., ICML 2017)."""
    return training.SynapticIntelligence(**common, train_epochs=epochs, si_lambda=si_lambda)


def lwf(common: Common, epochs: int, alpha: float = 1.0, temperature: float = 2.0) -> SupervisedTemplate:
    """Learning without forgetting (Li & Hoiem, ECCV 2016): ``alpha`` weighs distillation."""
    return training.LwF(**common, train_epochs=epochs, alpha=alpha, temperature=temperature)


def icarl(common: Common, epochs: int, memory_size: int) -> SupervisedTemplate:
    """iCaRL (Rebuffi et al., CVPR 2017): herded exemplars, distillation, nearest mean of exemplars.

    Its loss and its classifier are its own; the network's last layer is only trained through.

    Raises:
        ValueError: The network is no sequence that ends in a linear layer.
    """
    common = dict(common)
    network = common.pop("model")
    if not isinstance(network, nn.Sequential) or not isinstance(network[-1], nn.Linear):
        raise ValueError("iCaRL needs a model.network that is an nn.Sequential with a Linear at its end: leave it out.")
    del common["criterion"]
    return training.ICaRL(
        **common,
        feature_extractor=nn.Sequential(*list(network)[:-1]),
        classifier=network[-1],
        memory_size=memory_size,
        buffer_transform=None,
        fixed_memory=True,
        train_epochs=epochs,
    )


def asymmetric_cross_entropy(new: Tensor, y: Tensor, replayed: Tensor, replayed_y: Tensor) -> Tensor:
    """The loss of ER-ACE: cross-entropy of new examples over the classes of their batch, of replayed ones over all.

    Args:
        new: Logits of new examples, shape (B, C).
        y: Their labels, shape (B,).
        replayed: Logits of replayed examples, shape (R, C).
        replayed_y: Their labels, shape (R,).
    """
    classes, places = y.unique(return_inverse=True)
    return (F.cross_entropy(new[:, classes], places) + F.cross_entropy(replayed, replayed_y)) / 2


class ReplayWhatThereIs(SupervisedPlugin):
    """Lets the replay batch of DER and ER-ACE be no larger than what their memory holds."""

    def __init__(self, replay_batch_size: int) -> None:
        super().__init__()
        self._wanted = replay_batch_size

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        held = len(strategy.storage_policy.buffer) if strategy.storage_policy.buffer_groups else self._wanted
        strategy.batch_size_mem = min(self._wanted, held)


class StopWhenBroken(SupervisedPlugin):
    """Ends training that has diverged, which Avalanche would go on with."""

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        if not torch.isfinite(strategy.mb_output).all():
            place = f"experience {strategy.clock.train_exp_counter + 1}"
            raise FloatingPointError(f"the network's outputs are no longer finite in {place}: lower lr.")


PEERS: dict[str, Callable[..., SupervisedTemplate]] = {
    "naive": naive,
    "joint": joint,
    "Replay": replay,
    "DER++": der,
    "ER-ACE": er_ace,
    "GDumb": gdumb,
    "A-GEM": a_gem,
    "EWC": ewc,
    "SI": si,
    "LwF": lwf,
    "iCaRL": icarl,
}
BOUNDS = {"naive": "lower", "joint": "upper"}  # what a comparison measures the others by
OF_ALL = {"lr": 1e-3, "optimizer": "torch.optim.Adam", "batch_size": None}  # settings that every peer takes
FROM_CONFIGURATION = {
    "epochs": ("data", "epochs"),
    "memory_size": ("model", "algorithm", "init_args", "memory_size"),
    "replay_batch_size": ("model", "algorithm", "init_args", "replay_batch_size"),
    "batch_size": ("data", "batch_size"),
}

# ---------------------------------------------------------------------------------------- what a comparison asks for


def plan(name: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`learn`, as plain values: all that the run depends on, and nothing else.

    Args:
        name: A name in ``PEERS``, or the dotted name of a function like those there.
        config: The benchmark's configuration, resolved (see :func:`bayesdual.configuration.resolve`).
        settings: The peer's own, or what it is to take instead of the configuration's.

    Raises:
        ValueError: There is no such peer or setting, or the configuration lacks what the peer reads from it.
    """
    parameters = list(inspect.signature(peer_named(name)).parameters.values())[1:]
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


def bound(name: str) -> str | None:
    """Whether a peer is the ``upper`` or the ``lower`` bound of what the others can reach, or neither."""
    return BOUNDS.get(name)


def peer_named(name: str) -> Callable[..., SupervisedTemplate]:
    """The function that builds a peer.

    Raises:
        ValueError: There is none of that name.
    """
    if name in PEERS:
        return PEERS[name]
    module, _, function = name.rpartition(".")
    if module:
        try:
            return getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"peer {name} is not there ({error}).") from None
    lower = {known.lower(): known for known in PEERS}
    close = get_close_matches(name.lower(), lower, 1)
    hint = f"did you mean {lower[close[0]]}? " if close else ""
    raise ValueError(f"{name!r} is not a peer; {hint}There are {', '.join(PEERS)}.")


def learn(
    name: str,
    settings: Mapping[str, Any],
    network: Mapping[str, Any],
    benchmark: Mapping[str, Any],
    evaluate_on: str,
    seed: int,
) -> dict[str, Any]:
    """Learns a stream by a peer and evaluates after each experience.

    Args:
        name: See :func:`plan`.
        settings: The peer's, and the learning rate, optimizer and batch size.
        network: Class path and arguments of the network.
        benchmark: Class path and arguments of what makes the benchmark.
        evaluate_on: The stream to evaluate on, ``test`` or ``valid``.
        seed: Seed of all that is random.

    Returns:
        The results of :class:`bayesdual.history.History`, and ``exemplars``, the examples in memory at the end.

    Raises:
        ValueError: The peer cannot learn this stream.
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
        raise ValueError("the stream has task labels, which no peer here uses: compare without them.")
    classes = [classes_of(e) for e in experiences]
    if peer_named(name) is icarl and len(set(sum(classes, []))) < sum(map(len, classes)):
        raise ValueError("iCaRL learns new classes in each experience, but here they come again: leave it out.")
    train = [_tensors(data) for data in made.data.evaluation_data("train")]
    evaluation = [_tensors(data) for data in made.data.evaluation_data(evaluate_on)]
    if peer_named(name) is joint:
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


# -------------------------------------------------------------------------------------------------------- its parts


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
    if "n_experiences" in inspect.signature(peer_named(name)).parameters:
        settings["n_experiences"] = n_experiences
    strategy = peer_named(name)(common, **settings)
    strategy.plugins.append(StopWhenBroken())
    return strategy


def _tensors(data: TensorData | DatasetData) -> Tensors:
    x = data.take(torch.arange(len(data)))
    mean = getattr(data, "mean", ())
    return (normalise(x, mean, data.std) if mean else x), data.y


def _avalanche_stream(tensors: Iterable[Tensors]) -> list[Any]:
    datasets = []
    for x, y in tensors:
        examples = Examples(x, y.tolist())
        attributes = [DataAttribute(examples.y, "targets"), TaskLabels(ConstantSequence(0, len(y)))]
        datasets.append(TaskAwareSupervisedClassificationDataset([examples], data_attributes=attributes))
    benchmark = with_classes_timeline(benchmark_from_datasets(train=datasets))
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


def _evaluate(strategy: SupervisedTemplate, evaluation: Sequence[Tensors]) -> dict[str, Any]:
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
    kept = 0
    for part in (strategy, *strategy.plugins):
        if hasattr(part, "storage_policy"):
            kept += len(part.storage_policy.buffer)
        kept += sum(len(group) for name in ("buffers", "x_memory") for group in getattr(part, name, ()))
    return kept
