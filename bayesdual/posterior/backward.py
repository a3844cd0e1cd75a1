"""Backward passes from logits to the output of every layer, in chunks of examples and classes that fit in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bayesdual.posterior.checks import bytes_of, checked_logits
from bayesdual.posterior.layer_rules import slices
from bayesdual.posterior.recording import Layer, Parameter, Plan, explain, record

MEMORY = 2**28  # bytes: with more, ResNet-18 is slower

Pass = tuple[slice, slice, Layer | Parameter, Tensor]
"""Some examples and some classes, a source of R, and the gradients (K, B, ...) there of K combinations of logits."""


def backward_passes(
    model: nn.Module,
    inputs: Tensor,
    plan: Plan,
    variances: Mapping[str, Tensor],
    memory_limit: int = MEMORY,
    directions: Tensor | None = None,
    whole: bool = False,
) -> Iterator[Pass]:
    """Goes backward from the logits to all that has a variance, and gives what arrives there, one source at a time.

    Args:
        model: its parameters that have a variance require a gradient, and no others.
        inputs: batch (B, ...).
        plan: what the forward of one example told.
        variances: by parameter name.
        memory_limit: bytes to aim at.
        directions: (B, C), one combination of logits for each example; None: each logit by itself.
        whole: all classes at once.

    Raises:
        ValueError: there is no example, or directions are not (B, C).
    """
    if len(inputs) == 0:
        raise ValueError("inputs holds no example: give a batch of at least one.")
    if directions is not None and directions.shape != (len(inputs), plan.classes):
        raise ValueError(
            f"directions has shape {tuple(directions.shape)}, but the logits have shape {(len(inputs), plan.classes)}."
        )
    parameters = dict(model.named_parameters())
    height = plan.classes if directions is None else 1

    def passes(batch: slice, logits: Tensor, sources: Sequence[Layer | Parameter], cost: int) -> Iterator[Pass]:
        """Of one batch; `cost` is in bytes per class."""
        room = memory_limit - plan.scratch - len(logits) * plan.forward
        for part in slices(height, height if whole else room // cost):
            along = _unit_vectors(logits, part) if directions is None else directions[batch].unsqueeze(0)
            gradients = _backward(logits, [source.target for source in sources], along.to(logits))
            for source in reversed(sources):
                gradient = gradients.pop()  # freed one by one
                if gradient is not None:
                    yield batch, part, source, gradient.to(plan.dtype)

    dims = None
    cost = plan.forward + height * plan.backward
    for batch in slices(len(inputs), (memory_limit - plan.scratch) // cost):
        logits, calls = record(model, inputs[batch])
        if dims is None:
            several = calls if len(logits) > 1 else record(model, torch.cat([inputs[:1], inputs[:1]]))[1]
            dims = plan.batch_dims(several, max(2, len(logits)))
        layers, others = explain(logits, calls, dims, parameters, variances)
        if layers:
            yield from passes(batch, logits, layers, len(logits) * plan.backward)
        del logits, calls, layers  # and with them the graph
        if others:
            one_class = plan.backward + 3 * sum(bytes_of(other.variance) for other in others)
            for i in range(*batch.indices(len(inputs))):
                one = slice(i, i + 1)
                yield from passes(one, checked_logits(model(inputs[one]), 1), others, one_class)


def _unit_vectors(logits: Tensor, part: slice) -> Tensor:
    """(K, B, C), the unit vectors of some classes, the same for each example."""
    eye = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[part]
    return eye.unsqueeze(1).expand(-1, len(logits), -1)


def _backward(logits: Tensor, targets: list[Any], along: Tensor) -> list[Tensor | None]:
    """Gradients (K, ...) at tensors or graph edges of K combinations, (K, B, C), of the logits; None is zero."""

    def gradients(cotangents: Tensor, batched: bool) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(
            logits, targets, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )

    if len(along) > 1:
        with warnings.catch_warnings():  # vmap's own loop over an operator is as fast as ours
            warnings.filterwarnings("ignore", "There is a performance drop")
            try:
                return list(gradients(along, True))
            except RuntimeError:  # something in the graph that vmap cannot batch
                pass
    columns = zip(*(gradients(cotangents, False) for cotangents in along), strict=True)
    return [None if column[0] is None else torch.stack(column) for column in columns]
