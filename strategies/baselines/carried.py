"""What Avalanche's strategies carry from one experience to the next, beyond the network and its optimizer, in bytes.

    exemplar     its input: a byte a number where the stream's inputs are uint8, two for int16 (tokens), else 4;
                 its label: a byte, or two with more than 256 classes;
                 DER++: its logits, 4 bytes each
    EWC          weights and their importance for each experience learned, 2 P floats of 4 bytes
    SI           importance, P floats (the weights it holds to are the network's when an experience ends)
    CoVON        the precision of its prior, P floats (the prior's mean is the weights)
    LwF          the network it distils from, P floats
    merging      weights of the base and of each expert, and the curvature of each, beside the memory if there is one

Avalanche itself keeps exemplars as floats; what is counted is the smallest form that gives the same. iCaRL distils from
the network as the last experience left it, which is not counted, nor are its means, which follow from its exemplars.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from avalanche.training.plugins import EWCPlugin, LwFPlugin, SynapticIntelligencePlugin
from torch import Tensor, nn

from bayesdual.strategies.baselines.covon import CoVONPlugin
from bayesdual.strategies.baselines.methods import der

FLOAT = 4  # bytes


class ExemplarBytes(NamedTuple):
    """Bytes of an exemplar."""

    inputs: int
    labels: int
    logits: int

    @classmethod
    def of(cls, made: Callable[..., Any], x: Tensor, n_classes: int) -> ExemplarBytes:
        """Those of what a baseline keeps.

        Args:
            made: The function that builds it.
            x: Inputs as the stream gives them, shape (B, ...).
            n_classes: Number of classes in the stream.
        """
        size = x[0].numel() * min(x.dtype.itemsize, FLOAT)
        return cls(size, 1 if n_classes <= 256 else 2, FLOAT * n_classes if made is der else 0)

    def bought(self, memory_bytes: int, n_classes: int) -> int:
        """Number of exemplars within bytes.

        Raises:
            ValueError: There is not one for each class.
        """
        check_budget(memory_bytes, sum(self) * n_classes, n_classes, "exemplar")
        return memory_bytes // sum(self)


def check_budget(memory_bytes: int, needed: int, n_classes: int, what: str) -> None:
    """Refuses a budget that is too small for one of something for each class.

    Raises:
        ValueError: It is.
    """
    if memory_bytes < needed:
        raise ValueError(
            f"memory_bytes is {memory_bytes}, but one {what} for each of {n_classes} classes takes {needed}: give at "
            "least as many."
        )


def exemplars(strategy: Any) -> int:
    """The examples that a strategy keeps, wherever it has them."""
    kept = 0
    for part in (strategy, *strategy.plugins):
        if getattr(part, "storage_policy", None) is not None:
            kept += len(part.storage_policy.buffer)
        kept += sum(len(group) for name in ("buffers", "x_memory") for group in getattr(part, name, ()))
    return kept


def memory_bytes(strategy: Any, of_exemplar: ExemplarBytes) -> dict[str, int]:
    """The bytes that a strategy carries, by part, without parts of 0."""
    kept = exemplars(strategy)
    parts = {name: kept * size for name, size in of_exemplar._asdict().items()}
    for plugin in strategy.plugins:
        if isinstance(plugin, EWCPlugin):
            parts["weights"] = _floats(plugin.saved_params)
            parts["importance"] = _floats(plugin.importances)
        elif isinstance(plugin, SynapticIntelligencePlugin):
            parts["importance"] = _floats(plugin.ewc_data[1])
        elif isinstance(plugin, CoVONPlugin):
            parts["importance"] = sum(precision.nbytes for precision in plugin.optimizer.prior_precisions())
        elif hasattr(plugin, "memory_bytes"):  # which counts for itself
            parts |= plugin.memory_bytes()
        elif isinstance(plugin, LwFPlugin):
            parts["teacher"] = FLOAT * sum(p.numel() for p in cast(nn.Module, plugin.lwf.prev_model).parameters())
    return {name: size for name, size in parts.items() if size}


def _floats(parameters: Any) -> int:
    """Bytes of the tensors in nested mappings of Avalanche's ``ParamData``."""
    if isinstance(parameters, dict):
        return sum(_floats(part) for part in parameters.values())
    return FLOAT * parameters.data.numel()
