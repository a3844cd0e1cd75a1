"""Saving an Avalanche strategy between experiences, and going on from there.

Everything is kept by name, as tensors and plain values: the file loads without executing code, into a new
strategy. Avalanche's own ``save_checkpoint`` pickles the whole strategy, which fails for the optimizers of recent
versions of PyTorch.

What an evaluator or a logger has gathered is not kept: metrics that compare with the past (forgetting) start again.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from avalanche.models.dynamic_modules import MultiTaskModule
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.clock import Clock
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.templates.base_sgd import PeriodicEval
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesdual.files import is_damaged, write_whole
from bayesdual.random_state import random_state, set_random_state

FORMAT = "bayesdual-strategy-1"
_COUNTERS = (
    "train_iterations",
    "train_exp_counter",
    "total_iterations",
)  # of Avalanche's clock; others are per experience


def save_checkpoint(strategy: SupervisedTemplate, path: str | Path) -> None:
    """Writes what a strategy has learned to a file, between two experiences::

        for experience in benchmark.train_stream:
            strategy.train(experience)
            save_checkpoint(strategy, "strategy.pt")

    Args:
        strategy: Any strategy whose further plugins, if they remember anything, have ``state_dict`` and
            ``load_state_dict``, as :class:`BayesDualPlugin` has.
        path: Where to.

    Raises:
        ValueError: The strategy is being trained, or has a plugin that cannot say what it remembers.
    """
    if strategy.experience is not None:
        raise ValueError("the strategy is in the middle of an experience: save_checkpoint after train() has returned.")
    model, optimizer = strategy.model, strategy.optimizer
    names = {p: n for n, p in (strategy.optimized_param_id or dict(model.named_parameters())).items()}
    state = {
        "format": FORMAT,
        "experiences": strategy.clock.train_exp_counter,
        "model": model.state_dict(),
        "tasks": {n: _tasks(m) for n, m in model.named_modules() if isinstance(m, MultiTaskModule)},
        "optimizer": type(optimizer).__name__,
        "optimizer_state": optimizer.state_dict(),
        "optimizer_parameters": [[(names[p], list(p.shape)) for p in g["params"]] for g in optimizer.param_groups],
        "plugins": [plugin.state_dict() for plugin in _plugins(strategy)],
        "clock": {name: getattr(strategy.clock, name) for name in _COUNTERS},
        "random_state": random_state(),
    }
    write_whole(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(strategy: SupervisedTemplate, path: str | Path) -> int:
    """Brings a strategy to where :func:`save_checkpoint` was called::

        done = load_checkpoint(strategy, "strategy.pt")
        for experience in benchmark.train_stream[done:]:
            strategy.train(experience)

    Args:
        strategy: Made as the one that was saved; a growing classifier grows to what it was.
        path: Where from.

    Returns:
        The number of experiences that were learned.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint of a strategy, or of one that was made otherwise.
    """
    if Path(path).exists() and is_damaged(path):
        raise ValueError(f"{path} is damaged: its content is not what its checksums say; take another checkpoint.")
    try:
        state = torch.load(path, map_location=strategy.device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a checkpoint of a strategy, or is damaged ({error}).") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of a strategy: it was not written by save_checkpoint.")
    _load_model(strategy.model.to(strategy.device), state["model"], state["tasks"])
    _load_optimizer(strategy, state)
    plugins = _plugins(strategy)
    if len(plugins) != len(state["plugins"]):
        raise ValueError(
            f"the checkpoint has the states of {len(state['plugins'])} plugins and the strategy has {len(plugins)}: "
            "make the strategy as the one that was saved."
        )
    for plugin, saved in zip(plugins, state["plugins"], strict=True):
        plugin.load_state_dict(saved)
    for name, value in state["clock"].items():
        setattr(strategy.clock, name, value)
    set_random_state(state["random_state"])
    return state["experiences"]


def _plugins(strategy: SupervisedTemplate) -> list[Any]:
    """The plugins that remember something, in order.

    Raises:
        ValueError: One cannot say what it remembers.
    """
    others = [p for p in strategy.plugins if not isinstance(p, EvaluationPlugin | PeriodicEval | Clock)]
    for plugin in others:
        if not (hasattr(plugin, "state_dict") and hasattr(plugin, "load_state_dict")):
            raise ValueError(
                f"the plugin {type(plugin).__name__} has no state_dict() and load_state_dict(), so a checkpoint would "
                "lose what it remembers: give it both, or leave it out."
            )
    return others


# -- the model


def _tasks(module: MultiTaskModule) -> dict[str, Any]:
    """What a multi-task module keeps beside tensors."""
    return {"max_class_label": module.max_class_label, "known": sorted(module.known_train_tasks_labels)}


def _load_model(model: nn.Module, state: Mapping[str, Tensor], tasks: Mapping[str, Mapping[str, Any]]) -> None:
    for name, module in list(model.named_modules()):
        if isinstance(module, MultiHeadClassifier):
            _add_heads(module, name, state)
    for name, module in list(model.named_modules()):
        if isinstance(module, IncrementalClassifier):
            _grow(module, name, state)
        if isinstance(module, MultiTaskModule) and name in tasks:
            module.max_class_label = tasks[name]["max_class_label"]
            module.known_train_tasks_labels = set(tasks[name]["known"])
    ours, theirs = ({n: tuple(v.shape) for n, v in s.items()} for s in (model.state_dict(), state))
    different = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    if different:
        n = different[0]
        raise ValueError(
            f"the checkpoint is of another model: {n} has shape {theirs.get(n)} there and {ours.get(n)} in the "
            "strategy; make the strategy as the one that was saved."
        )
    model.load_state_dict(state)


def _add_heads(module: MultiHeadClassifier, name: str, state: Mapping[str, Tensor]) -> None:
    prefix = f"{name}." if name else ""
    for key, value in state.items():
        place, _, buffer = key.rpartition(".")
        if place == name and buffer.startswith("active_units_T"):
            task = buffer.removeprefix("active_units_T")
            module.register_buffer(buffer, value.clone())
            if f"{prefix}classifiers.{task}.classifier.weight" in state and task not in module.classifiers:
                head = IncrementalClassifier(module.in_features, masking=False, auto_adapt=False)
                module.classifiers[task] = head.to(value.device)


def _grow(module: IncrementalClassifier, name: str, state: Mapping[str, Tensor]) -> None:
    weight = state.get(f"{name}.classifier.weight" if name else "classifier.weight")
    if weight is None or weight.shape == module.classifier.weight.shape:
        return
    n_classes, n_features = weight.shape
    module.classifier = nn.Linear(n_features, n_classes).to(weight.device)
    module.active_units = torch.zeros(n_classes if module.masking else len(module.active_units), dtype=torch.int8).to(
        weight.device
    )


# -- the optimizer


def _load_optimizer(strategy: SupervisedTemplate, state: Mapping[str, Any]) -> None:
    optimizer: Optimizer = strategy.optimizer
    kind, groups = state["optimizer"], state["optimizer_parameters"]
    if kind != type(optimizer).__name__ or len(groups) != len(optimizer.param_groups):
        raise ValueError(
            f"the checkpoint is of {kind} with {len(groups)} parameter groups and the strategy has "
            f"{type(optimizer).__name__} with {len(optimizer.param_groups)}: make the strategy as the saved one."
        )
    current = dict(strategy.model.named_parameters())
    known = {}
    for group, parameters in zip(optimizer.param_groups, groups, strict=True):
        for name, shape in parameters:
            # Evaluation may have let a parameter grow; the optimizer learns of it when the next experience begins.
            grown = list(current[name].shape) != shape
            known[name] = nn.Parameter(current[name].new_empty(shape)) if grown else current[name]
        group["params"] = [known[name] for name, _ in parameters]
    optimizer.load_state_dict(state["optimizer_state"])
    strategy.optimized_param_id = known  # without it, Avalanche's next train() would empty the optimizer's state
