"""Merging as a way to learn a stream: an expert for each experience, all from one base, merged after each.

    experience 1    theta_0 = theta_1 is learned: the base, with curvature H_0
    experience t    theta_t is learned from theta_0, on nothing but its own data, with curvature H_t
    after it        theta = merge(theta_0, [theta_1 .. theta_t])    (``bayesdual/merging/merge.py``)

The base is one of those that are merged where a method takes a mean of them; gradient matching has it as H_0, and task
arithmetic and TIES in what the experts have learned besides.

No expert needs another, so that they may as well be learned at once, on other machines: :meth:`Experts.add` takes each
as it comes, and what is merged does not depend on their order. Where experiences have different classes, an expert
gives the head the rows of its own classes alone, and these compare with the others' once the head is fitted again on a
memory (``bayesdual/merging/refit.py``).

What is carried are the weights and the curvature of each expert, so that it grows with the stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bayesdual.merging.merge import merge
from bayesdual.posterior import Curvature, KroneckerFactors, kronecker_curvature, watching_last_linear
from bayesdual.stream import ExperienceData, normalise

EXAMPLES = 1500  # of an experience, that a curvature is measured on
PAIRS = 1000  # backward passes of a curvature
DEFAULTS = {"gradient_matching": {"tolerance": 1e-3}}
WITHOUT_CURVATURE = ("average", "task_arithmetic", "ties")
MEANS = ("average", "fisher", "regmean")  # methods to which the base is a model as the others are


class Experts:
    """Experts of one base, and what they come to together.

    Args:
        method: A method of ``bayesdual.merging.merge``.
        **options: What that method has besides.

    Attributes:
        base: Weights and buffers of the base, by name; None before it is learned.
        experts: Those of each expert.
        curvatures: Of the base and of each expert, Kronecker factors where layers have them; empty where the method
            needs none.
        classes: The classes that the base and each expert learned.
    """

    def __init__(self, method: str = "gradient_matching", **options: Any) -> None:
        self.method = method
        self.options: dict[str, Any] = DEFAULTS.get(method, {}) | options
        self.base: dict[str, Tensor] | None = None
        self.experts: list[dict[str, Tensor]] = []
        self.curvatures: list[dict[str, Curvature]] = []
        self.classes: list[list[int]] = []
        self._head = ""  # name of the layer that has a row for each class

    def begin(self, module: nn.Module) -> None:
        """Makes a network that is about to become an expert the base; while there is none, leaves it as it is."""
        if self.base is not None:
            module.load_state_dict(self.base)

    def add(self, module: nn.Module, x: Tensor, classes: Iterable[int], generator: torch.Generator) -> None:
        """Takes in a network that has learned an experience: the first as the base, each other as an expert.

        Args:
            module: The network, in eval mode.
            x: Inputs of its experience, as the network takes them, shape (N, ...): what the curvature is measured on.
            classes: The classes that it has learned.
            generator: Source of randomness, on the CPU.

        Raises:
            ValueError: It has other parameters than the base, or its curvature cannot be measured.
        """
        weights = {name: value.detach().clone() for name, value in module.state_dict().items()}
        if self.base is None:
            with torch.no_grad(), watching_last_linear(module) as last:
                module(x[:1])
            self.base, self._head = weights, last.name or ""
        elif {n: v.shape for n, v in weights.items()} != {n: v.shape for n, v in self.base.items()}:
            raise ValueError(
                "the network has other parameters than the base that experts are merged from: a head that grows cannot "
                "be merged; give it all classes at the start."
            )
        else:
            self.experts.append(weights)
        ones = torch.ones(len(x), device=x.device)
        needed = self.method not in WITHOUT_CURVATURE
        self.curvatures.append(kronecker_curvature(module, x, ones, pairs=PAIRS, generator=generator) if needed else {})
        self.classes.append(sorted(set(classes)))

    def learned(self, module: nn.Module, data: ExperienceData, device: torch.device | str) -> None:
        """Takes in a network that has learned an experience, and makes it what all experts so far come to.

        Args:
            module: The network, in eval mode, which takes normalised inputs.
            data: The experience's training examples, on some of which the curvature is measured.
            device: Where the network is.

        Raises:
            ValueError: As :meth:`add` and :meth:`merged`.
        """
        generator = torch.Generator().manual_seed(len(self.classes))
        rows = torch.randperm(len(data.y), generator=generator)[:EXAMPLES]
        x = normalise(data.inputs(rows).to(device), data.mean, data.std)
        self.add(module, x, data.y.unique().tolist(), generator)
        module.load_state_dict(self.merged())

    def merged(self) -> dict[str, Tensor]:
        """Weights and buffers of all experts together, by name; the base's while there is no other.

        Raises:
            RuntimeError: There is no base yet.
            ValueError: As ``bayesdual.merging.merge``.
        """
        if self.base is None:
            raise RuntimeError("there is no base yet: add what was learned first.")
        if not self.experts:
            return dict(self.base)
        first = 0 if self.method in MEANS else 1
        models, classes = [self.base, *self.experts][first:], self.classes[first:]
        same = all(some == self.classes[0] for some in self.classes)
        if not same:
            models = [self._of_classes(*each) for each in zip(models, classes, strict=True)]
        head = () if same else (f"{self._head}.weight",)  # joined by rows, whose curvature nobody asks for
        known = [{n: h for n, h in some.items() if n not in head} for some in self.curvatures]
        given: dict[str, Any] = {"curvatures": known[first:]}
        if self.method == "gradient_matching":
            given["base_curvature"] = known[0]
        classes_of = None if same else classes
        return dict(merge(self.base, models, method=self.method, classes=classes_of, **given, **self.options))

    def memory_bytes(self) -> dict[str, int]:
        """Bytes that are carried beside the network, by part."""
        factors = [
            (h.inputs, h.outputs) if isinstance(h, KroneckerFactors) else (h,)
            for some in self.curvatures
            for h in some.values()
        ]
        weights = [value for some in (self.base or {}, *self.experts) for value in some.values()]
        return {
            "weights": sum(value.nbytes for value in weights),
            "curvature": sum(part.nbytes for parts in factors for part in parts),
        }

    def state_dict(self) -> dict[str, Any]:
        """All that is carried; tensors and plain values only."""
        return {
            "base": self.base,
            "experts": self.experts,
            "curvatures": [
                {n: h if isinstance(h, Tensor) else (h.inputs, h.outputs, h.bias) for n, h in some.items()}
                for some in self.curvatures
            ],
            "classes": self.classes,
            "head": self._head,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        self.base, self.experts, self.classes = state["base"], list(state["experts"]), list(state["classes"])
        self.curvatures = [
            {n: h if isinstance(h, Tensor) else KroneckerFactors(*h) for n, h in some.items()}
            for some in state["curvatures"]
        ]
        self._head = state["head"]

    def _of_classes(self, expert: dict[str, Tensor], classes: list[int]) -> dict[str, Tensor]:
        """An expert whose head has the rows of its classes alone."""
        return {n: v[classes] if n.rpartition(".")[0] == self._head else v for n, v in expert.items()}
