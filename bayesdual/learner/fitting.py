"""Whether a network and a stream fit each other, and what was learned before; a head that is too narrow is widened."""

from __future__ import annotations

import warnings
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bayesdual.algorithm import BayesDual
from bayesdual.learner.datamodule import StreamDataModule
from bayesdual.learner.growth import check_tasks, count_logits, mask_of_tasks, no_mask, widen_for
from bayesdual.learner.past import joined_names
from bayesdual.learner.start import check_labels
from bayesdual.memory import Memory
from bayesdual.models import evaluating
from bayesdual.prediction import check_last_layer, class_logits, takes_task_labels
from bayesdual.stream import ExperienceData, Inputs, Predict

LOOKED_AT = 100  # examples, of which the scale is told
LARGE = 50.0


class Known(NamedTuple):
    """What a learner knows of its data."""

    inputs: Inputs | None  # what they are like; None before any are known
    classes: tuple[str, ...]  # names, by label, where the benchmark has any
    tasks: Tensor | None  # which classes each task can be, shape (tasks, classes); None: all


def fitted(
    network: nn.Module,
    algorithm: BayesDual,
    stream: StreamDataModule,
    learned: Known,
    by_posterior: bool,
    fitting: bool,
) -> tuple[Known, str | None]:
    """Sees that a stream fits a network and what it has learned, and widens the head where classes are new.

    Args:
        network: Maps inputs to logits.
        algorithm: What is remembered of the past, and how.
        stream: What is to be learned, or evaluated on.
        learned: What is known of data that were learned before, if any were.
        by_posterior: Whether predictions are by the posterior of the last layer.
        fitting: Whether the stream is to be learned.

    Returns:
        What is known with this stream; and the name of the head, if it has been widened.

    Raises:
        ValueError: They do not fit.
    """
    train, sample, is_softmax = stream.stream("train"), stream.evaluation_data("test")[0], stream.likelihood.is_softmax
    inputs, told = Inputs.of(sample), takes_task_labels(network)
    if learned.inputs is not None:
        learned.inputs.refuse_others(inputs)
    logits = partial(class_logits, network, inputs=inputs, tasks=None, told=told)
    n_logits, goes_on = count_logits(network, logits, sample, inputs), stream.n_learned_before > 0
    grows = is_softmax and fitting and goes_on and n_logits < stream.n_classes
    n_logits = stream.n_classes if grows else n_logits
    if fitting:
        check_outputs(stream, n_logits)
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError("model.network has no parameter that requires a gradient: there is nothing to learn.")
        warn_of_scale(sample)
        check_labels(stream, n_logits)
        algorithm.check_budget(sample, stream.n_classes)
    if by_posterior:
        _check_posterior(network, logits, sample, algorithm.memory)
    if told:
        mask = None
    elif not is_softmax:
        mask = no_mask(train)
    elif fitting or learned.tasks is None:
        mask = mask_of_tasks(learned.tasks, train, n_logits, goes_on)
    else:
        mask = check_tasks(learned.tasks, train)
    head = widen_for(network, logits, sample, n_logits) if grows else None
    return Known(inputs, joined_names(learned.classes, stream.benchmark), mask), head


def warn_of_scale(data: ExperienceData) -> None:
    """Warns of inputs far from 1, on which a rate that suits others may diverge or learn nothing.

    Args:
        data: Some examples; of those that are no floats, or are images in uint8, nothing is said.
    """
    x = data.inputs(torch.arange(min(len(data.y), LOOKED_AT)))
    if x.is_floating_point() and (size := float(x.double().flatten(1).square().mean(0).sqrt().max())) > LARGE:
        warnings.warn(
            f"the inputs of data.benchmark are as large as {size:.3g} (root mean square over {len(x)} examples), and "
            "IVON's rule is made for about 1: standardise them, as from_arrays and from_table do.",
            stacklevel=2,
        )


def check_outputs(stream: StreamDataModule, n_logits: int) -> None:
    """Refuses a network without an output for all that a stream has.

    Raises:
        ValueError: It has too few, or, of targets that are numbers, another number than the likelihood takes.
    """
    likelihood = stream.likelihood
    needed = likelihood.outputs(stream.n_classes)
    if not likelihood.is_softmax and n_logits != needed:
        raise ValueError(
            f"model.network gives {n_logits} outputs, and the likelihood {likelihood.name} takes {needed}: "
            "give the network as many."
        )
    if likelihood.is_softmax and n_logits < needed:
        raise ValueError(
            f"model.network gives {n_logits} logits but data.benchmark has {stream.n_classes} classes: "
            "give the network as many."
        )


def _check_posterior(network: nn.Module, predict: Predict, data: ExperienceData, memory: Memory) -> None:
    """Refuses at the start what predictions by the posterior would fail on when the first experience ends."""
    if not memory.budget and memory.max_bytes is None:
        raise ValueError(
            "model.prediction needs the posterior of all data, which is measured on the memory: give a memory_size "
            "above 0, or model.prediction mean."
        )
    with evaluating(network):
        check_last_layer(network, predict, data.inputs(torch.arange(1)), data.tasks[:1])
