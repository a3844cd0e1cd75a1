"""The samples of a step: how one is put into the parameters and taken out again, and what is kept of it for the step.

    AT_MEAN      the parameters hold m
    TRAINING     they hold a sample theta = m + eps whose gradient is for the coming step; the buffer keeps m
    CLOSED       they hold m again, the buffer keeps eps, and the gradient waits for the step
    PREDICTING   they stand for a sample that leaves no trace, in memory of its own; m stays where it was

    AT_MEAN --open--> TRAINING --close--> CLOSED --open--> TRAINING         the same sample once more
                                          CLOSED --finish--> AT_MEAN        its g and eps g are added to the sums
    AT_MEAN, CLOSED --predicting--> PREDICTING --close--> AT_MEAN, CLOSED   where it came from
    any --discard--> AT_MEAN                                                nothing is left for the step

Beside the optimizer's state this needs one buffer of the size of the parameters, and as much again while predicting.
A sample for training can be made again from its key, so that no more is kept of it. One for prediction belongs to
whoever took its tensors (a state dict holds no copies), so that they are not written to again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor

from bayesdual.ivon import foreach
from bayesdual.ivon.blocks import Groups, States
from bayesdual.ivon.checks import (
    ADDED_TO_ANOTHER,
    ZEROED_TOO_EARLY,
    check_params,
    check_settings,
    factors,
    first_nonfinite,
    gradient_length,
    name_of,
)
from bayesdual.ivon.distributed import rank_and_world_size, refuse_averaged
from bayesdual.ivon.drawing import adopt_, draw_, draw_into_, restore_
from bayesdual.ivon.gradients import Gradients, Mark, Sums, gradients_of, holders, version
from bayesdual.ivon.keys import Keys
from bayesdual.ivon.layout import Layout, trainable
from bayesdual.ivon.shards import local
from bayesdual.ivon.threads import for_each


class State(Enum):
    """What the parameters and the buffer hold; see the top of this file."""

    AT_MEAN = auto()
    TRAINING = auto()
    CLOSED = auto()
    PREDICTING = auto()


class Samples:
    """The samples between one step and the next: one object, which Lightning's copies of an optimizer share.

    Args:
        keys: Keys of the noise.
        squared: The product is g^2 ("gradsq"), and not eps g ("price").
        independent: Each process draws its own samples.
    """

    def __init__(self, keys: Keys, squared: bool, independent: bool) -> None:
        self.keys, self.squared, self.independent = keys, squared, independent
        self.reset()

    def reset(self) -> None:
        """Forgets all that can be made again: the keys stay."""
        self.layout = Layout([], {})
        self.has_seen_a_loss = False  # and has warned, if it was a sum
        self.gradients_are_local = False  # as far as is known
        self.keys.seed_is_shared = False
        self._older: Gradients = {}  # gradients from before the sample, until they are zeroed,
        self._mark = Mark({})  # which this shows
        self._forget()

    def _forget(self) -> None:
        self.state = State.AT_MEAN
        self._key: str | None = None  # of the sample that is open or closed
        self.closed: Gradients = {}  # when it was closed last,
        self._version_closed = 0  # and of which version they were
        self._thetas: Gradients = {}  # what the parameters stand for while predicting; kept, as fresh memory takes time
        self._finished = Sums(self.squared)

    def __reduce__(self) -> tuple[Any, ...]:
        return Samples, (self.keys, self.squared, self.independent)  # a copy begins at the mean

    @property
    def held(self) -> bool:
        """Whether the parameters hold a sample."""
        return self.state in (State.TRAINING, State.PREDICTING)

    @property
    def waiting(self) -> bool:
        """Whether samples were drawn since the last step."""
        return self._key is not None or self._finished.count > 0

    # -- transitions

    def open(self, groups: Groups, states: States) -> None:
        """Puts the sample of the coming step into the parameters: AT_MEAN or CLOSED -> TRAINING.

        Raises:
            RuntimeError: They hold a sample.
        """
        with torch.inference_mode(False), torch.no_grad():
            self.prepare(groups, states)
            self._thetas = {}
            if self._key is None:
                self._key = self.keys.training(self.independent, self.layout.device)
            self._draw(self._key)
            self.layout.gather_again()

    def close(self) -> None:
        """Puts the mean back: TRAINING -> CLOSED; does nothing where the parameters hold it."""
        if not self.held:
            return
        with torch.inference_mode(False), torch.no_grad():
            if self.state is State.PREDICTING:
                self.layout.show_means(self._thetas)
                alone = holders(torch.empty(1))
                self._thetas = {p: theta for p, theta in self._thetas.items() if holders(theta) == alone}
            else:
                for_each(self.layout.blocks, restore_)
                self.layout.follow()
                self.closed = gradients_of(self._params())
                self._version_closed = version(self.closed)
            self.layout.gather_again()
        self.state = State.AT_MEAN if self._key is None else State.CLOSED

    @torch.no_grad()
    def finish(self) -> None:
        """Makes way for another sample: CLOSED -> AT_MEAN; a sample that a gradient scaler would skip is dropped.

        Raises:
            RuntimeError: Its gradients were zeroed.
        """
        length = gradient_length(self.closed)
        if length == 0 and version(self.closed) != self._version_closed:
            self.discard()
            raise RuntimeError(ZEROED_TOO_EARLY)
        if math.isfinite(length):
            self.add(self.closed)
        else:
            bad = self._name(first_nonfinite(self.closed))
            self._leave()
            warnings.warn(
                f"a sample was dropped, as the gradient of {bad} was infinite or not a number; when a gradient scaler "
                "skips a step, this is as it should be.",
                stacklevel=3,
            )

    def add(self, grads: Gradients) -> None:
        """Adds g and the product of the closed sample to the sums: CLOSED -> AT_MEAN."""
        self._finished.add(grads, self.layout.buffers)
        self._leave()

    def _leave(self) -> None:
        self.remember(self._params())
        self._key, self.closed = None, {}
        self.state = State.AT_MEAN

    def discard(self) -> None:
        """Puts the mean back, and forgets all samples since the last step and their gradients: -> AT_MEAN."""
        self.close()
        if not self._mark.is_zeroed():
            self._mark.remove()
        self._forget()
        self._older = {}

    @contextmanager
    def training(self, groups: Groups, states: States, added: str = ADDED_TO_ANOTHER) -> Iterator[None]:
        """A sample for the coming step, beside those before; discards all where it is left by an exception.

        Args:
            groups: The optimizer's parameter groups.
            states: The optimizer's states.
            added: What is wrong if gradients are added to older ones.

        Raises:
            RuntimeError: The parameters hold a sample, or gradients are added to older ones.
        """
        if self.state is State.CLOSED:
            self.finish()
        self.open(groups, states)
        self._mark = Mark(self._older)
        try:
            yield
        except BaseException:
            self.discard()
            raise
        self.close()
        kept = [g for p, g in self.closed.items() if g is self._older.get(p)]
        marked = any(g is self._mark.gradient for g in kept)
        if kept and not (marked and self._mark.is_zeroed()):  # neither replaced nor zeroed
            self.discard()
            raise RuntimeError(added)
        self._mark.remove()

    @contextmanager
    def predicting(self, groups: Groups, states: States) -> Iterator[None]:
        """A sample for prediction: AT_MEAN or CLOSED -> PREDICTING, and back.

        Raises:
            RuntimeError: The parameters hold a sample.
        """
        with torch.inference_mode(False), torch.no_grad():
            self.prepare(groups, states)
            key = self.keys.prediction()
            self._thetas |= {p.p: torch.empty_like(p.value) for p in self.layout.places if p.p not in self._thetas}
            for_each(self.layout.blocks, lambda block: draw_into_(block, key, self._thetas))
        self.state = State.PREDICTING
        try:
            with torch.inference_mode(False), torch.no_grad():
                self.layout.show(self._thetas)
                self.layout.gather_again()
            yield
        finally:
            self.close()

    def require_mean(self, purpose: str) -> None:
        """Checks that the parameters hold the mean.

        Raises:
            RuntimeError: They hold a sample.
        """
        if self.held:
            raise RuntimeError(f"the parameters hold a sample: leave it before {purpose}.")

    def prepare(self, groups: Groups, states: States) -> None:
        """Sees that the parameters hold the mean, and that the blocks are theirs; it makes the state that is missing.

        Raises:
            RuntimeError: The parameters hold a sample.
            ValueError: A setting is out of its range, or a parameter cannot be learned.
        """
        if self.held:
            raise RuntimeError("the parameters already hold a sample: leave it before drawing another.")
        for group in groups:
            check_settings(group)
        if not self.layout.is_of(groups, states):
            if self.waiting:
                self._forget()
                warnings.warn(
                    "the samples since the last step were dropped: the parameters have changed.", stacklevel=4
                )
            for group in groups:
                check_params(group["params"], self.independent)
            for _, p in trainable(groups):
                states[p].setdefault("step", 0)
            self.layout = Layout(groups, states)
            self._thetas = {}
        for_each(self.layout.blocks, adopt_)

    def _draw(self, key: str) -> None:
        """Puts the sample of a key into the parameters."""
        self.state = State.TRAINING
        try:
            for_each(self.layout.blocks, lambda block: draw_(block, key))
        except BaseException:
            self.discard()
            raise

    # -- gradients

    def zero(self) -> None:
        """Takes note that the gradients are about to be zeroed: a closed sample is finished before."""
        if self.state is State.CLOSED and self.closed:
            self.finish()
        self._mark.remove()
        self._older = {}

    def remember(self, params: Iterable[Tensor]) -> None:
        """Takes note of the gradients there are, to which those of another sample must not be added."""
        self._older = gradients_of(params)

    def gradients(self, max_norm: float, max_rms: float = math.inf) -> tuple[Gradients, bool]:
        """The mean of g of each parameter that has one, and whether the buffer holds the mean of the product already.

        Args:
            max_norm: Gradients that are longer, of all parameters together, are shortened to this.
            max_rms: The gradient of a parameter whose root mean square is larger is shortened to this, before.

        Raises:
            FloatingPointError: A gradient is infinite or not a number.
            RuntimeError: A parameter was moved since the sample, or processes have the same gradients in spite of
                independent samples.
            ValueError: A gradient is sparse.
        """
        grads = self._gradients_of_last()
        spread = self.independent and rank_and_world_size()[1] > 1
        averaged = spread or self._finished.count > 0
        if averaged:
            if self._key is not None:
                self.add(grads)
            grads = self._average(spread)
        length = gradient_length(grads)
        if not math.isfinite(length):
            raise FloatingPointError(
                f"the gradient of {self._name(first_nonfinite(grads))} is infinite or not a number: the step was not "
                "made; lower the learning rate or look for the cause in the loss."
            )
        if length > max_norm or math.isfinite(max_rms):
            grads = self._shortened(grads, factors(grads, length, max_norm, max_rms), averaged)
        return grads, averaged

    def _gradients_of_last(self) -> Gradients:
        """What ``p.grad`` holds now, in the order in memory of the parameter."""
        grads = gradients_of(self._params())
        for place in self.layout.places:
            p, g = place.p, grads.get(place.p)
            if g is None:
                continue
            if place.has_moved():
                raise RuntimeError(f"{self._name(p)} was moved between the sample and the step: move it before.")
            if g.is_sparse:
                raise ValueError(f"the gradient of {self._name(p)} is sparse: make the embedding with sparse=False.")
            grads[p] = local(g)
            if grads[p].stride() != place.value.stride():
                grads[p] = torch.empty_like(place.value).copy_(grads[p])
        return grads

    def _params(self) -> list[Tensor]:
        return [place.p for place in self.layout.places]

    def _name(self, p: Tensor | None) -> str:
        return name_of(p, self.layout.groups)

    def _average(self, spread: bool) -> Gradients:
        """Turns sums into means, if ``spread`` over the processes too; those of the product go into the buffer."""
        if spread and not self.gradients_are_local:
            refuse_averaged(self._finished.gradients(), self.layout.device)
            self.gradients_are_local = True
        pairs = self._finished.means(self.layout.buffers, spread)
        for p, (_, product) in pairs.items():
            self.layout.buffers[p].copy_(product)
        return {p: torch.empty_like(self.layout.buffers[p]).copy_(g) for p, (g, _) in pairs.items()}

    def _shortened(self, grads: Gradients, by: Mapping[Tensor, float], averaged: bool) -> Gradients:
        """The gradients times the factor of each, and what was made of them likewise."""
        buffers = self.layout.buffers
        if averaged:
            products = [buffers[p] for p in grads]
            foreach.mul_(products, [by[p] ** 2 if self.squared else by[p] for p in grads])
        single = [g.to(buffers[p].dtype) for p, g in grads.items()]
        return dict(zip(grads, foreach.mul(single, [by[p] for p in grads]), strict=True))
