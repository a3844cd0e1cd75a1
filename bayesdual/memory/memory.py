"""A memory of exemplars with a fixed budget, shared out fairly over classes.

The budget goes to the classes in equal shares, and within a class to the experiences that brought it in equal
shares; what a class cannot fill goes to the others. Where a class came in more experiences than its share has
exemplars, a fair and lasting draw decides which of these are kept. Exemplars stand in the order of their importance
(the selection's), so that when shares shrink, the tail is dropped. The weights of a class's exemplars sum to the number
of its examples, and are shared out over the experiences that are kept by their numbers of examples, so that

    sum over memory of w_z l(z)   estimates   sum over all past examples of l(i)

without bias between old and new, or between frequent and rare classes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bayesdual.files import write_whole
from bayesdual.memory.exemplars import Exemplars, concatenate
from bayesdual.memory.shares import by_class, quotas

FORMAT = "bayesdual-memory-1"


class Memory:
    """Exemplars of the past, at most ``budget`` of them, and how many examples they stand for.

    Args:
        budget: Greatest number of exemplars, at least 0 (0: nothing is kept).

    Raises:
        ValueError: ``budget`` is negative.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise ValueError(f"memory_size is {budget}: give the number of examples to keep, 0 or more.")
        self.budget = budget
        self.exemplars: Exemplars | None = None
        self.counts: dict[tuple[int, int], int] = {}  # examples seen, by (class, experience)
        self._drawn_from: tuple[Exemplars, Tensor, Tensor] | None = None  # and its labels and weights, on the CPU

    def __len__(self) -> int:
        return 0 if self.exemplars is None else len(self.exemplars)

    @property
    def examples_seen(self) -> int:
        """Number of examples of all past experiences: what the weights would sum to if no class was left out."""
        return sum(self.counts.values())

    def room_for(self, y: Tensor, experience: int, generator: torch.Generator | None = None) -> dict[int, int]:
        """How many exemplars of each class of a new experience there is room for.

        An experience may come in pieces, as online streams do, under one index. Then the room is what a uniform draw
        from all pieces so far would give to the newest (reservoir sampling, a piece at a time).

        Args:
            y: Labels of the experience's examples, or of its next piece's, shape (N,).
            experience: Its index.
            generator: Source of randomness, on the CPU; PyTorch's own if None.

        Raises:
            ValueError: The budget is smaller than the number of classes seen.
        """
        counts = self._counts_with(y, experience)
        classes = {c for c, _ in counts}
        if 0 < self.budget < len(classes):
            raise ValueError(
                f"memory_size is {self.budget} but {len(classes)} classes have been seen: "
                "give it at least one example per class."
            )
        shares = quotas(counts, self.budget)
        room = {}
        for c in y.unique().tolist():
            seen, before = counts[c, experience], self.counts.get((c, experience), 0)
            drawn = torch.randperm(seen, generator=generator)[: shares[c, experience]] if before else None
            room[c] = shares[c, experience] if drawn is None else int((drawn >= before).sum())
        return room

    def shares_with(self, y: Tensor, experience: int) -> dict[tuple[int, int], int]:
        """How many exemplars each (class, experience) may keep once examples with labels ``y`` (N,) are taken in."""
        return quotas(self._counts_with(y, experience), self.budget)

    def update(
        self, new: Exemplars | None, y: Tensor, experience: int, generator: torch.Generator | None = None
    ) -> None:
        """Takes in the exemplars of a new experience, or of its next piece, and trims the old ones to their shares.

        Args:
            new: Chosen exemplars, for each class at most what :meth:`room_for` gave, in the order of importance;
                their weights count only relative to each other. None if there was no room.
            y: Labels of all the experience's (or the piece's) examples, shape (N,).
            experience: Its index.
            generator: Source of randomness, on the CPU; PyTorch's own if None.
        """
        self.update_counts(y, experience)
        kept = {}
        for (c, e), n in quotas(self.counts, self.budget).items():
            old, added = (None if part is None else part.of(c, e) for part in (self.exemplars, new))
            group = _mix(old, added, n, generator) if old and added else (old or added)
            if n and group:
                kept[c, e] = group[:n]
        seen, present = by_class(self.counts), by_class({key: self.counts[key] for key in kept})
        for (c, e), group in kept.items():
            stands_for = self.counts[c, e] * (seen[c] / present[c])
            kept[c, e] = replace(group, weights=group.weights * (stands_for / group.weights.sum()))
        self.exemplars = concatenate(list(kept.values()))

    def update_counts(self, y: Tensor, experience: int) -> None:
        """Counts the examples of a new experience, shape (N,), by class."""
        self.counts = self._counts_with(y, experience)

    def draw(self, n: int, generator: torch.Generator) -> Exemplars:
        """Returns ``n`` exemplars, each as often as it stands for past examples (give or take one), in random order.

        That is systematic sampling: exemplars in random order, class by class, take up a length of their weight each,
        and at even steps one is drawn, so that every class, too, is drawn as often as it should. Those drawn count
        the same: their weights are 1. A memory smaller than ``n`` is gone through several times.

        Args:
            n: Number of exemplars to return.
            generator: Source of randomness, on the CPU.

        Raises:
            ValueError: The memory is empty.
        """
        if self.exemplars is None:
            raise ValueError("the memory is empty: nothing can be drawn from it.")
        if self._drawn_from is None or self._drawn_from[0] is not self.exemplars:
            self._drawn_from = self.exemplars, self.exemplars.y.cpu(), self.exemplars.weights.cpu()
        known, y, weights = self._drawn_from
        order = torch.randperm(len(y), generator=generator)
        order = order[y[order].argsort(stable=True)]
        until = weights[order].cumsum(0)
        steps = (torch.arange(n) + torch.rand((), generator=generator)) * (until[-1] / n)
        places = torch.searchsorted(until, steps).clamp_max(len(y) - 1)  # rounding
        rows = order[places[torch.randperm(n, generator=generator)]]
        drawn = known[rows.to(known.y.device)]
        return replace(drawn, weights=torch.ones_like(drawn.weights))

    def state_dict(self) -> dict[str, object]:
        """Tensors and plain numbers only: loads with ``weights_only=True``."""
        return {
            "budget": self.budget,
            "counts": [[c, e, n] for (c, e), n in sorted(self.counts.items())],
            "exemplars": None if self.exemplars is None else self.exemplars.tensors(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restores what :meth:`state_dict` gave.

        Raises:
            ValueError: The state is of a memory with another budget.
        """
        if state["budget"] != self.budget:
            raise ValueError(
                f"the checkpoint's memory holds {state['budget']} examples but memory_size is {self.budget}: "
                "give the same memory_size."
            )
        self.counts = {(c, e): n for c, e, n in state["counts"]}
        self.exemplars = None if state["exemplars"] is None else Exemplars(**state["exemplars"])

    def save(self, path: str | Path) -> None:
        """Writes the memory to one safetensors file, whose JSON header holds budget and counts."""
        state = self.state_dict()
        header = {"format": FORMAT, "memory": json.dumps({k: state[k] for k in ("budget", "counts")})}
        tensors = {} if self.exemplars is None else self.exemplars.tensors()
        tensors = {k: v.cpu().contiguous() for k, v in tensors.items()}
        write_whole(path, lambda temporary: save_file(tensors, temporary, header))

    @classmethod
    def load(cls, path: str | Path) -> Memory:
        """Reads what :meth:`save` wrote; executes nothing from it.

        Raises:
            ValueError: The file is not a memory.
        """
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a memory file, or is damaged ({error}).") from None
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} is not a memory file: its header does not say {FORMAT}.")
        state = json.loads(header["memory"])
        memory = cls(state["budget"])
        memory.load_state_dict({**state, "exemplars": tensors or None})
        return memory

    def _counts_with(self, y: Tensor, experience: int) -> dict[tuple[int, int], int]:
        classes, numbers = y.unique(return_counts=True)
        added = zip(classes.tolist(), numbers.tolist(), strict=True)
        return {**self.counts, **{(c, experience): n + self.counts.get((c, experience), 0) for c, n in added}}


def _mix(old: Exemplars, new: Exemplars, n: int, generator: torch.Generator | None) -> Exemplars:
    """Joins all new and as many old exemplars as fit into n: pieces of one experience.

    Their order is random, so that a later cut hits no piece more than another.
    """
    scale = old.weights.mean() / new.weights.mean()
    joined = concatenate([old[: n - len(new)], replace(new, weights=new.weights * scale)])
    return joined[torch.randperm(len(joined), generator=generator).to(joined.y.device)]
