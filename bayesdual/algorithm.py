"""Bayes-duality for continual learning: one object, whoever the host is.

While an experience of N examples is learned, with the memory standing for N' past examples, the loss per example is

    loss = ( N   mean over the new batch of CE(y, f)
           + N'  [ a  mean over a replay batch of CE(y, f)                     labels
                 + b  mean over a replay batch of T^2 CE(soft label, f) ]      function space (K-prior)
           + c 1/2 (theta - theta_old)^T P (theta - theta_old) ) / (N + N')    weight space (K-prior)

with a + b = 1 (normalised here), P the posterior precision: every example, old or new, counts the same. When the
experience ends, the posterior scores its examples, a selection fills the memory, and the weights and their precision
become the anchor of the next. A host (Lightning's or Avalanche's) calls ``begin_experience``, ``loss`` and
``end_experience``, and keeps ``state_dict``; the algorithm knows neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.kprior import function_space_loss, label_loss, weight_space_loss
from bayesdual.memory import Exemplars, Memory, concatenate
from bayesdual.selection import Candidates, Selection, random
from bayesdual.sensitivity import curvature, leverage, watching_last_linear
from bayesdual.stream import ExperienceData

SCORING_BATCH = 1000

Predict = Callable[[Tensor, Tensor], Tensor]
"""Inputs as the stream gives them (B, ...) and task labels (B,) to logits (B, C)."""


class GaussianPosterior(Protocol):
    """What the algorithm needs of a posterior: tensors by parameter name."""

    mean: Mapping[str, Tensor]
    variance: Mapping[str, Tensor]
    precision: Mapping[str, Tensor]


@dataclass(frozen=True)
class Knowledge:
    """What the model says of all examples of an experience once it is learned, aligned with them.

    Attributes:
        logits: Shape (N, C).
        features: Inputs of the last layer, shape (N, D).
        scores: Leverage of each example under the posterior's last layer, shape (N,); the sum of its lambda where
            there is no posterior of a last layer.
    """

    logits: Tensor
    features: Tensor
    scores: Tensor


class BayesDual:
    """Continual learning with a memory of exemplars and a K-prior.

    Args:
        memory_size: Greatest number of exemplars kept; 0 turns replay off.
        replay_batch_size: Exemplars replayed in each step (on each device); a memory that is smaller is replayed
            several times over in one batch.
        label_share: Share a of the labels in replay, between 0 and 1; the rest is the soft labels'.
        temperature: T of the soft labels.
        weight_prior: Factor c of the weight-space term; 0 leaves it out.
        selection: Which examples of each class are kept (see ``bayesdual.selection``).

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        memory_size: int = 200,
        replay_batch_size: int = 64,
        label_share: float = 0.5,
        temperature: float = 2.0,
        weight_prior: float = 0.0,
        selection: Selection = random,
    ) -> None:
        if replay_batch_size < 1:
            raise ValueError(f"replay_batch_size is {replay_batch_size}: give at least 1.")
        if not 0 <= label_share <= 1:
            raise ValueError(f"label_share is {label_share}: it is a share between 0 and 1.")
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}: give a positive number.")
        if weight_prior < 0:
            raise ValueError(f"weight_prior is {weight_prior}: give 0 (no prior of the weights) or more.")
        self.memory = Memory(memory_size)
        self.replay_batch_size = replay_batch_size
        self.label_share = label_share
        self.temperature = temperature
        self.weight_prior = weight_prior
        self.selection = selection
        self._anchor: dict[str, dict[str, Tensor]] = {}  # mean and precision of the past's posterior
        self._generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        self._examples = 0  # of the experience under way
        self._rank, self._ranks = 0, 1

    def begin_experience(
        self, data: ExperienceData, device: torch.device | str = "cpu", rank: int = 0, ranks: int = 1
    ) -> None:
        """Gets ready to learn an experience.

        Args:
            data: Its training examples.
            device: Where the model is.
            rank: Which process this is.
            ranks: Number of processes; each replays its own part of a common draw.
        """
        self._examples = len(data.y)
        self._rank, self._ranks = rank, ranks
        if self.memory.exemplars is not None:
            self.memory.exemplars = self.memory.exemplars.to(device)
        self._anchor = {k: {n: v.to(device) for n, v in part.items()} for k, part in self._anchor.items()}

    def loss(
        self, module: nn.Module, predict: Predict, x: Tensor, y: Tensor, t: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a step, per example.

        Args:
            module: The network, for its named parameters.
            predict: Its logits.
            x: New inputs, shape (B, ...).
            y: Their labels, shape (B,).
            t: Their task labels, shape (B,).

        Returns:
            The loss, and its parts (detached, unweighted) by name.
        """
        past = self.memory.examples_seen if len(self.memory) else 0
        new_share = self._examples / (self._examples + past)
        if not past:
            new = F.cross_entropy(predict(x, t), y)
            total, parts = new, {"new": new.detach()}
        else:
            z = self._draw()
            logits = predict(torch.cat([x, z.x]), torch.cat([t, z.t]))
            new = F.cross_entropy(logits[: len(y)], y)
            labels = label_loss(logits[len(y) :], z.y, z.weights)
            soft = function_space_loss(logits[len(y) :], z.logits, z.weights, self.temperature)
            replay = self.label_share * labels + (1 - self.label_share) * soft
            total = new_share * new + (1 - new_share) * replay
            parts = {"new": new.detach(), "labels": labels.detach(), "function_space": soft.detach()}
        if self.weight_prior and self._anchor:
            anchored = weight_space_loss(module, **self._anchor) * (self.weight_prior / (self._examples + past))
            total = total + anchored
            parts["weight_space"] = anchored.detach()
        return total, parts

    @torch.no_grad()
    def end_experience(
        self,
        module: nn.Module,
        predict: Predict,
        data: ExperienceData,
        experience: int,
        posterior: GaussianPosterior | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Scores the examples of the experience just learned, and takes what is to be kept into the memory.

        The module must be in eval mode, at the posterior mean.

        Args:
            module: The network.
            predict: Its logits.
            data: The experience's training examples.
            experience: Its index.
            posterior: The weights' posterior, by the parameter names of ``module``; None if there is none.
            device: Where the model is.

        Raises:
            ValueError: The memory is smaller than the number of classes seen.
        """
        if self.memory.budget:
            room = self.memory.room_for(data.y, experience)
            known = survey(module, predict, data, posterior, device)
            chosen = [self._choose(known, data, experience, c, n) for c, n in room.items() if n]
            self.memory.update(concatenate(chosen), data.y, experience)
        else:
            self.memory.update_counts(data.y, experience)
        if self.weight_prior and posterior is not None:
            self._anchor = {
                "mean": {n: v.clone() for n, v in posterior.mean.items()},
                "precision": {n: v.clone() for n, v in posterior.precision.items()},
            }

    def state_dict(self) -> dict[str, Any]:
        """All that the next experience depends on; tensors and plain values only."""
        return {
            "memory": self.memory.state_dict(),
            "anchor": self._anchor,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave.

        Raises:
            ValueError: The state is of a memory with another budget.
        """
        self.memory.load_state_dict(state["memory"])
        self._anchor = state["anchor"]
        self._generator.set_state(state["generator"].cpu())

    def _draw(self) -> Exemplars:
        """This process's part of a replay batch that all processes draw together."""
        common = self.memory.draw(self.replay_batch_size * self._ranks, self._generator)
        return common if self._ranks == 1 else common[torch.arange(self._rank, len(common), self._ranks)]

    def _choose(self, known: Knowledge, data: ExperienceData, experience: int, label: int, n: int) -> Exemplars:
        mine = torch.nonzero(data.y == label).squeeze(1)
        candidates = Candidates(known.features[mine], known.logits[mine].softmax(1), known.scores[mine])
        places, weights = self.selection(candidates, n, self._generator)
        rows = mine[places]
        device = known.logits.device
        return Exemplars(
            x=data.take(rows).to(device),
            y=data.y[rows].to(device),
            t=data.t[rows].to(device),
            logits=known.logits[rows],
            weights=weights.to(device, torch.float32),
            scores=known.scores[rows],
            experience=torch.full_like(rows, experience).to(device),
            index=data.index[rows].to(device),
        )


def survey(
    module: nn.Module,
    predict: Predict,
    data: ExperienceData,
    posterior: GaussianPosterior | None,
    device: torch.device | str,
) -> Knowledge:
    """Goes once through the examples of an experience and notes what the model and its posterior say of each.

    Without a linear layer, the logits serve as features.
    """
    logits, features, scores = [], [], []
    with watching_last_linear(module) as last:
        for x, _, t in data.batches(SCORING_BATCH):
            f = predict(x.to(device), t.to(device)).float()
            p = f.softmax(1)
            variance = None if posterior is None else last.variance(posterior.variance)
            logits.append(f)
            features.append(f if last.features is None else last.features.float())
            if variance is None or variance.shape != p.shape:
                scores.append(curvature(p).sum(1))
            else:
                scores.append(leverage(p, variance))
    return Knowledge(torch.cat(logits), torch.cat(features), torch.cat(scores))
