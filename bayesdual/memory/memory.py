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

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesdual.files import refusing_other_content
from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.memory.cosine_spread import CosineSpread
from bayesdual.memory.exemplars import Exemplars, concatenate
from bayesdual.memory.file import as_bytes, as_tensors, load, save
from bayesdual.memory.levels import bytes_of_vectors
from bayesdual.memory.low_rank_spread import LowRankSpread
from bayesdual.memory.packing import UNKNOWN, Packed, are_features, pack, size_of, unpack
from bayesdual.memory.plan import Counts, Plan, plan_of
from bayesdual.memory.sampling import systematic_sample
from bayesdual.memory.shares import by_class
from bayesdual.memory.soft_labels import soft_labels
from bayesdual.memory.spread import AnySpread, Spread
from bayesdual.memory.vectors import Condenser
from bayesdual.stream import Predict

RANK, SHARE = 100, 0.2  # directions of the spread around features: so many, and at most this part of the bytes


class Memory:
    """Exemplars of the past, at most ``budget`` of them, and how many examples they stand for.

    When an experience has been learned, :meth:`plan` says what will be kept, :meth:`make_room` merges what has to go,
    :meth:`take_in` takes the new exemplars in, and :meth:`relabel` renews all soft labels.

    With a budget in bytes, :meth:`size_up` works out beforehand how many exemplars it holds, and :meth:`fit` codes them
    and merges some more until it does.

    Args:
        budget: Greatest number of exemplars, at least 0 (0: nothing is kept); with ``max_bytes`` what :meth:`size_up`
            makes of it.
        max_bytes: Greatest number of bytes of all that is carried to the next experience (see ``packing.py``).

    Raises:
        ValueError: A budget is negative, or none.
    """

    def __init__(self, budget: int, max_bytes: int | None = None) -> None:
        if budget < 0:
            raise ValueError(f"memory_size is {budget}: give the number of examples to keep, 0 or more.")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"memory_bytes is {max_bytes}: give the number of bytes to keep, at least 1.")
        self.budget = budget
        self.max_bytes = max_bytes
        self.spread: AnySpread = Spread() if max_bytes is None else CosineSpread()  # around means
        self._packed: Packed = {}
        self._exemplars: Exemplars | None = None
        self._counts: Counts = {}
        self._drawn_from: tuple[Exemplars, Tensor, Tensor] | None = None  # and its labels and weights, on the CPU

    def __len__(self) -> int:
        return 0 if self._exemplars is None else len(self._exemplars)

    @property
    def exemplars(self) -> Exemplars | None:
        """What is kept, by class and experience, the most important first; None while that is nothing."""
        return self._exemplars

    @property
    def counts(self) -> Counts:
        """Examples seen, by (class, experience)."""
        return self._counts

    @property
    def examples_seen(self) -> int:
        """Number of examples of all past experiences: what the weights would sum to if no class was left out."""
        return sum(self._counts.values())

    def plan(self, y: Tensor, experience: int, generator: torch.Generator | None = None) -> Plan:
        """What is going to be kept once the examples of an experience, or of its next piece, are taken in.

        Args:
            y: Their labels, shape (N,).
            experience: Index of the experience.
            generator: Source of randomness, on the CPU; PyTorch's own if None.

        Raises:
            ValueError: The budget is smaller than the number of classes seen.
        """
        return plan_of(self._counts, y, experience, self.budget, generator)

    def make_room(self, plan: Plan, condense: Condenser) -> None:
        """Merges the exemplars that a plan has no place for into those that stay, where they can be merged."""
        if self._exemplars is None or not condense.applies_to(self._exemplars.x):
            return
        known, groups = self._exemplars.groups(), []
        for c, e in plan.shares:
            if (group := known.get((c, e))) is None:
                continue
            stay = plan.staying(c, e)
            if 0 < stay < len(group):
                group = condense(group[:stay], group[stay:].x, group[stay:].weights)
            groups.append(group)
        self._exemplars = concatenate(groups)

    def take_in(self, plan: Plan, new: Exemplars | None, generator: torch.Generator | None = None) -> None:
        """Takes in the exemplars of a new experience, or of its next piece, and trims the old ones to their shares.

        Args:
            plan: What :meth:`plan` gave for all the experience's (or the piece's) examples.
            new: Chosen exemplars, of each class at most as many as the plan has room for, in the order of importance;
                their weights count only relative to each other. None if there was no room.
            generator: Source of randomness, on the CPU; PyTorch's own if None.
        """
        kept = {}
        known, chosen = ({} if part is None else part.groups() for part in (self._exemplars, new))
        for (c, e), n in plan.shares.items():
            old, added = known.get((c, e)), chosen.get((c, e))
            group = _mix(old, added, n, generator) if old and added else (old or added)
            if n and group:
                kept[c, e] = group[:n]
        seen, present = by_class(plan.counts), by_class({key: plan.counts[key] for key in kept})
        for (c, e), group in kept.items():
            stands_for = plan.counts[c, e] * (seen[c] / present[c])
            kept[c, e] = replace(group, weights=group.weights * (stands_for / group.weights.sum()))
        self._exemplars = concatenate(list(kept.values())) if kept else None
        self._counts = plan.counts

    def size_up(self, x: Tensor, y: Tensor, classes: int) -> None:
        """Works out how many exemplars a budget in bytes holds; does nothing where it is a number of them.

        Args:
            x: Some inputs like those that come, shape (n, ...).
            y: Their labels, shape (n,).
            classes: How many classes there will be.

        Raises:
            ValueError: It holds less than one a class.
        """
        if self.max_bytes is None:
            return
        if self._exemplars is None and are_features(x):
            self.spread = LowRankSpread(min(RANK, int(SHARE * self.max_bytes / bytes_of_vectors((1, x.shape[1])))))
        packed, n = (pack(_plain(x, y), {}), len(y)) if self._exemplars is None else (self._packed, len(self))
        rank = self.spread.rank if isinstance(self.spread, LowRankSpread) else 0
        beside = 2 * x[0].numel() + len(packed["counts"]) + (bytes_of_vectors((rank, x[0].numel())) if rank else 0)
        each = (len(packed["inputs"]) + len(packed["weights"]) + len(packed["labels"])) / n
        self.budget = int(max(0.0, self.max_bytes - beside) / each)
        self._refuse_too_few(classes, each + beside / classes)

    def check_bytes(self, x: Tensor, classes: int) -> None:
        """Refuses a budget in bytes that has no room for an exemplar of each class of a stream.

        Args:
            x: Some inputs like those that come, shape (n, ...).
            classes: How many classes there will be.

        Raises:
            ValueError: It has not.
        """
        if self.max_bytes is None:
            return
        rows = torch.arange(classes) % len(x)
        packed = pack(_plain(x[rows], torch.arange(classes)), {(c, 0): 1 for c in range(classes)})
        needed = sum(size_of(packed).values()) + 2 * x[0].numel()
        if needed > self.max_bytes:
            raise ValueError(
                f"memory_bytes is {self.max_bytes}, and one exemplar for each of the {classes} classes takes {needed}: "
                "give at least as many."
            )

    def _refuse_too_few(self, classes: int, each: float) -> None:
        if self.budget < classes:
            raise ValueError(
                f"memory_bytes is {self.max_bytes}, which holds {self.budget} exemplars, but there are {classes} "
                f"classes: give at least {math.ceil(classes * each)}, for one a class."
            )

    def fit(self, condense: Condenser, generator: torch.Generator) -> None:
        """Packs what is kept, where the budget is one of bytes, merging or dropping exemplars until it fits.

        What is in use afterwards is what the packed memory gives back.

        Args:
            condense: How exemplars are merged.
            generator: Source of randomness, on the CPU.

        Raises:
            ValueError: The budget holds less than one exemplar a class.
        """
        if self.max_bytes is None or self._exemplars is None:
            return
        while True:
            z = self._exemplars
            self._packed = pack(z, self._counts)
            size = sum(self.bytes_by_part().values())
            if size <= self.max_bytes:
                break
            self.budget = int(0.99 * len(z) * self.max_bytes / size)
            self._refuse_too_few(len({c for c, _ in self._counts}), size / len(z))
            plan = plan_of(self._counts, z.y[:0].cpu(), UNKNOWN, self.budget, generator)
            self.make_room(plan, condense)
            self.take_in(plan, None, generator)
        back = unpack(self._packed)[0].x.to(z.x)
        if condense.applies_to(z.x):
            condense.lose((z.x.float() - back.float()) * z.weights.sqrt().view(-1, *[1] * (z.x.dim() - 1)))
        self._exemplars = replace(z, x=back, weights=z.weights.half().to(z.weights))

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes that are carried to the next experience, by part; see ``bayesdual/memory/packing.py``.

        With a budget of exemplars they are kept as they are, with soft labels.
        """
        spread = {"spread": self.spread.nbytes} if self.spread else {}
        if self._exemplars is None:
            return spread
        if self.max_bytes is not None:
            return size_of(self._packed) | spread
        z = self._exemplars
        parts = {"inputs": z.x, "labels": z.y, "soft_labels": z.logits, "weights": z.weights}
        rest = (z.tasks, z.scores, z.experience, z.index)
        return {k: v.nbytes for k, v in parts.items()} | {"others": sum(v.nbytes for v in rest)} | spread

    def relabel(
        self,
        predict: Predict,
        temperature: float,
        generator: torch.Generator,
        likelihood: Likelihood = CATEGORICAL,
        noise: float = 1.0,
    ) -> None:
        """Gives all exemplars the soft labels of the network as it is now.

        Args:
            predict: Its logits, of inputs and task labels.
            temperature: T of the soft labels.
            generator: Source of randomness, on the CPU.
            likelihood: Of the targets.
            noise: Scale of the noise under which soft labels are mean predictions; 0: they are of exemplars alone.
        """
        if (z := self._exemplars) is not None:
            spread = self.spread if noise else None
            logits = soft_labels(predict, z, spread, self.examples_seen, temperature, generator, likelihood)
            self._exemplars = replace(z, logits=logits)

    def to(self, device: torch.device | str) -> None:
        """Moves what is kept."""
        if self._exemplars is not None:
            self._exemplars = self._exemplars.to(device)

    def mean_weight(self, of_class: Tensor | None) -> float:
        """The mean of a weight of classes, by class, over all past examples that are stood for; 1 of None."""
        if of_class is None or self._exemplars is None:
            return 1.0
        w = self._exemplars.weights
        return float((w * of_class[self._exemplars.y]).sum() / w.sum())

    def draw(self, n: int, generator: torch.Generator, noise: float = 0.0, of_class: Tensor | None = None) -> Exemplars:
        """Returns ``n`` exemplars, each as often as it stands for past examples (give or take one), in random order.

        Those drawn count the same: their weights are 1. A memory smaller than ``n`` is gone through several times.

        Args:
            n: Number of exemplars to return.
            generator: Source of randomness, on the CPU.
            noise: Scale of the noise that gives means of examples the spread of these; 0: none.
            of_class: What examples of each class count more or less, by class; None: all alike.

        Raises:
            ValueError: The memory is empty.
        """
        if self._exemplars is None:
            raise ValueError("the memory is empty: nothing can be drawn from it.")
        if self._drawn_from is None or self._drawn_from[0] is not self._exemplars:
            self._drawn_from = self._exemplars, self._exemplars.y.cpu(), self._exemplars.weights.cpu()
        known, y, weights = self._drawn_from
        if of_class is not None:
            weights = weights * of_class.cpu()[y]
        rows = systematic_sample(y, weights, n, generator)
        drawn = known[rows.to(known.y.device)]
        x = self.spread.around(drawn.x, self.examples_seen, noise, generator) if noise else drawn.x
        return replace(drawn, x=x, weights=torch.ones_like(drawn.weights))

    def save(self, path: str | Path) -> None:
        """Writes the exemplars to one safetensors file, whose JSON header holds budget and counts.

        With a budget in bytes the file is the packed memory; soft labels are not in it.
        """
        save(self.state_dict(), path)

    @classmethod
    def load(cls, path: str | Path) -> Memory:
        """Reads what :meth:`save` wrote; executes nothing from it.

        Raises:
            ValueError: The file is not a memory, or is damaged.
        """
        with refusing_other_content(path, "memory"):
            state = load(path)
            memory = cls(state["budget"], state.get("max_bytes"))
            try:
                memory.load_state_dict(state)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            return memory

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only: loads with ``weights_only=True``."""
        state = {
            "budget": self.budget,
            "counts": [[c, e, n] for (c, e), n in sorted(self._counts.items())],
            "exemplars": None if self._exemplars is None else self._exemplars.tensors(),
            "spread": self.spread.state_dict(),
        }
        if self.max_bytes is None:
            return state
        if self._exemplars is not None:
            state["exemplars"] = {k: v for k, v in self._exemplars.tensors().items() if k != "x"}
        return {**state, "max_bytes": self.max_bytes, "packed": as_tensors(self._packed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave.

        Raises:
            ValueError: The state is of a memory with another budget, or of a version with another spread or other
                exemplars, or damaged.
        """
        if state.get("max_bytes") != self.max_bytes:
            raise ValueError(
                f"the checkpoint was made with memory_bytes {state.get('max_bytes')}, but memory_bytes is "
                f"{self.max_bytes}: give the same memory_bytes."
            )
        if self.max_bytes is None and state["budget"] != self.budget:
            raise ValueError(
                f"the checkpoint's memory holds {state['budget']} examples but memory_size is {self.budget}: "
                "give the same memory_size."
            )
        packed, tensors = as_bytes(state.get("packed", {})), state["exemplars"]
        if packed:
            tensors = {**tensors, "x": unpack(packed)[0].x}
        exemplars = None if tensors is None else Exemplars.from_tensors(tensors)
        if "spread" in state:  # files, and checkpoints made before there was one
            if "rank" in state["spread"]:
                self.spread = LowRankSpread(int(state["spread"]["rank"]))
            self.spread.load_state_dict(state["spread"])
        self.budget = state["budget"]
        self._counts = {(c, e): n for c, e, n in state["counts"]}
        self._exemplars, self._packed = exemplars, packed


def _plain(x: Tensor, y: Tensor) -> Exemplars:
    """Inputs as exemplars of which nothing else is known."""
    zeros = torch.zeros_like(y)
    return Exemplars(x, y, zeros, torch.zeros(len(y), 0), torch.ones(len(y)), zeros.float(), zeros, zeros)


def _mix(old: Exemplars, new: Exemplars, n: int, generator: torch.Generator | None) -> Exemplars:
    """Joins all new and as many old exemplars as fit into n: pieces of one experience.

    Their order is random, so that a later cut hits no piece more than another.
    """
    scale = old.weights.mean() / new.weights.mean()
    joined = concatenate([old[: n - len(new)], replace(new, weights=new.weights * scale)])
    return joined[torch.randperm(len(joined), generator=generator).to(joined.y.device)]
