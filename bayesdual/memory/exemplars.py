"""Exemplars: examples, or means of examples, with what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from bayesdual.memory.shares import classes_or_one
from bayesdual.tensors import grow

IMPOSSIBLE = -1e4  # the logit of a class that cannot be: softmax gives it exactly 0, and stays finite


@dataclass(frozen=True)
class Exemplars:
    """Examples with what is known of them, aligned along the first dimension.

    Attributes:
        x: Inputs, shape (M, ...), of the type the stream gives them in (uint8 images stay uint8): examples, or means
            of examples around them.
        y: Labels, shape (M,), int64; targets that are numbers, float32.
        tasks: Task labels, shape (M,), int64.
        logits: What the network said of them when the last experience ended, shape (M, C), float32: the soft labels.
        weights: Number of past examples that each stands for, shape (M,), float32.
        scores: How much the posterior relies on each, shape (M,), float32.
        experience: Index of the experience that each came from, shape (M,), int64.
        index: Position of each, or of the example that the mean was taken around, in the source dataset, shape (M,),
            int64.
    """

    x: Tensor
    y: Tensor
    tasks: Tensor
    logits: Tensor
    weights: Tensor
    scores: Tensor
    experience: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> Exemplars:
        """Returns the exemplars at ``rows`` (int64 positions, a boolean mask or a slice)."""
        if isinstance(rows, Tensor) and rows.dtype == torch.int64:  # index_select takes a tenth of the time
            return Exemplars(**{name: tensor.index_select(0, rows) for name, tensor in self.tensors().items()})
        return Exemplars(**{name: tensor[rows] for name, tensor in self.tensors().items()})

    def groups(self) -> dict[tuple[int, int], Exemplars]:
        """Those of each class from each experience, by both, in their order; numbers are all of class 0."""
        pairs = torch.stack([classes_or_one(self.y), self.experience], 1).cpu()
        kinds, of_kind, sizes = pairs.unique(dim=0, return_inverse=True, return_counts=True)
        parted = self[of_kind.argsort(stable=True).to(self.y.device)].tensors()
        parts = zip(*(tensor.split(sizes.tolist()) for tensor in parted.values()), strict=True)
        return {(c, e): Exemplars(*part) for (c, e), part in zip(kinds.tolist(), parts, strict=True)}

    def to(self, device: torch.device | str) -> Exemplars:
        return Exemplars(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def tensors(self) -> dict[str, Tensor]:
        """All of them by name, as they are saved."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Exemplars:
        """What :meth:`tensors` gave, in this version or before 0.2, where task labels were called ``t``.

        Raises:
            ValueError: A tensor is missing, or there is one too many.
        """
        given = {"tasks" if name == "t" else name: tensor for name, tensor in tensors.items()}
        wrong = sorted(given.keys() ^ {f.name for f in fields(cls)})
        if wrong:
            state = "has" if wrong[0] in given else "lacks"
            raise ValueError(f"the saved memory {state} a tensor {wrong[0]!r}: it is of another version, or damaged.")
        return cls(**given)


def concatenate(parts: Sequence[Exemplars]) -> Exemplars:
    """Joins exemplars; soft labels of a head that has grown since are padded with classes that cannot be."""
    width = max(p.logits.shape[1] for p in parts)
    padded = [replace(p, logits=grow(p.logits, p.logits.new_empty(len(p), width), IMPOSSIBLE)) for p in parts]
    return Exemplars(**{f.name: torch.cat([getattr(p, f.name) for p in padded]) for f in fields(Exemplars)})
