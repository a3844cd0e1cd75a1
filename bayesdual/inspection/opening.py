"""What a run says of itself before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from bayesdual.learner import Learner


def opening(trainer: Trainer, learner: Learner, directory: Path, more: dict[str, str]) -> str:
    """A line each: device, network, method, memory, stream, where it writes to, and what else is to be known."""
    lines = dict(_lines(trainer, learner)) | more | {"writes to": f"{directory}"}
    return "\n".join(f"{name:<13}{text}" for name, text in lines.items())


def in_bytes(n: float) -> str:
    """A number of bytes, with three digits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} bytes"


def _lines(trainer: Trainer, learner: Learner) -> Iterator[tuple[str, str]]:
    stream, algorithm, network = learner.stream, learner.algorithm, learner.network
    processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    yield "device", f"{learner.device}{processes}"
    yield "network", f"{type(network).__name__}, {sum(p.numel() for p in network.parameters()):,} parameters"
    optimizer = type(trainer.optimizers[0]).__name__
    prior = algorithm.weight_prior
    parts = [f"{type(algorithm).__name__} with {optimizer}"]
    remembers = bool(algorithm.memory.budget) or algorithm.memory.max_bytes is not None
    parts += [f"memory by {name_of_part(algorithm.selection)}"] if remembers else []
    yield "method", ", ".join([*parts, "no prior of the weights" if prior is None else type(prior).__name__])
    yield "memory", _memory(learner)
    described = stream.describe()
    sizes, classes = described["sizes"], len({c for of_one in described["classes"] for c in of_one})
    of_what = f"{classes} classes" if learner.likelihood.has_classes else "numbers"
    examples = f"{sum(sizes):,} examples; epochs {stream.epochs}, batch size {stream.examples_of_a_batch}"
    yield "stream", f"{len(sizes)} experiences, {of_what}, {examples}"


def _memory(learner: Learner) -> str:
    memory = learner.algorithm.memory
    if memory.max_bytes is not None:
        return f"{in_bytes(memory.max_bytes)}, of all that is carried beside the network and its optimizer"
    if not memory.budget:
        return "no exemplars"
    x = learner.stream.evaluation_data(learner.stream.evaluate_on)[0].inputs(torch.arange(1))
    return f"up to {memory.budget} exemplars, whose inputs are {in_bytes(memory.budget * x.nbytes)}"


def name_of_part(part: Any) -> str:
    """That of a function, or of an object's class."""
    return getattr(part, "__name__", type(part).__name__)
