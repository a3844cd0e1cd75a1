"""Bayes-duality for continual learning: one object, whoever the host is.

While an experience of N examples is learned, with the memory standing for N' past examples, the loss per example is

    loss = ( N   mean over the new batch of CE(y, f)
           + N'  [ a  mean over a replay batch of CE(y, f)                     labels
                 + b  mean over a replay batch of T^2 CE(soft label, f) ]      function space (K-prior)
                 + 1/2 (theta - theta_old)^T P (theta - theta_old) ] ) / (N + N')   weight space (K-prior)

with a + b = 1, CE the cross-entropy or the loss of another likelihood (``bayesdual/likelihoods``), and P the precision
of the past's posterior, per example: every example, old or new, counts the same.
With ``equal`` classes instead, an example of class c counts g_c = (N + N') / (C n_c), n_c being the examples of its
class so far and C the classes so far: new losses are multiplied by g, exemplars are drawn in proportion to w_z g, and
their loss is multiplied by the mean of g over the past. The sum over examples becomes one over classes of mean losses.

When the experience ends, the posterior scores its examples, a selection fills the memory, each exemplar is made to
stand for the examples around it, by their mean and their spread, the network now gives all soft labels, and the weights
and their precision become the anchor of the next. A host (Lightning's or Avalanche's) calls ``begin_experience``,
``loss`` and ``end_experience``, and keeps ``state_dict``; the algorithm knows neither.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bayesdual.kprior import Holding, PriorName, WeightPrior, function_space_loss
from bayesdual.likelihoods import Likelihood, LikelihoodName, likelihood_by
from bayesdual.memory import (
    Condensation,
    Condenser,
    Exemplars,
    Memory,
    MemoryMap,
    Selection,
    can_be_averaged,
    candidate_rows,
    class_weights,
    dual_coverage,
    map_memory,
    memory_vectors,
    new_exemplars,
    stand_ins,
)
from bayesdual.posterior import Posterior, drawn_examples, joined, posterior_of_past, score_examples
from bayesdual.stream import ExperienceData, Predict, TensorData

MEMORY_SIZE = 200
SAMPLE = 500  # examples that a budget in bytes, the posterior, and a prior that is not carried are worked out from


class BayesDual:
    """Continual learning with a memory of exemplars and a K-prior.

    With nothing but a memory size it is the method that the tables of the README measure.

    Args:
        memory_size: Greatest number of exemplars kept; 0 turns replay off. None: 200, or what ``memory_bytes`` holds.
        memory_bytes: Greatest number of bytes of all that is carried to the next experience beside the network and its
            optimizer: exemplars are coded, as many as fit, and the prior of the weights is measured on them instead of
            being carried (see ``bayesdual.memory``). Of a linear network on vectors of many numbers, as on features of
            a frozen backbone, ``bayesdual.kprior.Residual`` is in the place of noise and of the default prior. None:
            no such bound.
        replay_batch_size: Exemplars replayed in each step, by all processes together, who replay as many each; a memory
            that is smaller is replayed several times over in one batch.
        label_share: Share a of the labels in replay, between 0 and 1; the rest is the soft labels'.
        temperature: T of the soft labels; None: the likelihood's, 3 for classes and 1 for counts.
        weight_prior: What holds the weights where the past needs them: "kronecker" is a ``KroneckerPrior`` of this
            algorithm's own, with its defaults; "natural" a ``NaturalPrior``, which also slows steps down there, for
            streams without a memory; None leaves the weight-space term out.
        selection: Which examples of each class are kept (see ``bayesdual.memory``).
        condensation: How an exemplar is made to stand for the examples around it (see ``bayesdual.memory``); None
            keeps exemplars as they are, as tokens always are, and inputs whose targets are numbers.
        spread: Scale of the noise that gives replayed means of examples the spread of these (see ``bayesdual.memory``);
            0 replays them as they are.
        candidates: Examples of each class that are scored and chosen among; of more, a random part is. At least as many
            as there is room for are.
        likelihood: What targets are: "categorical" (classes), "gaussian" (numbers), "poisson" (counts), "bernoulli"
            (two classes, by one output), one of these with settings, or one of your own (see
            ``bayesdual.likelihoods``).
        equal: What counts the same: "examples", so that what is frequent counts more; or "classes", so that rare ones
            are not given up for frequent ones (see above).

    Attributes:
        posterior: Of the weights given all data seen, as they were when the last experience ended; without a memory
            the optimizer's, None if it has none either.
        memory_map: Where the examples of the experience that ended last stand; None where none was scored.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        memory_size: int | None = None,
        replay_batch_size: int = 64,
        label_share: float = 0.5,
        temperature: float | None = None,
        weight_prior: WeightPrior | PriorName | None = "kronecker",
        selection: Selection = dual_coverage,
        condensation: Condensation | None = memory_vectors,
        spread: float = 0.6,
        candidates: int = 1500,
        memory_bytes: int | None = None,
        likelihood: Likelihood | LikelihoodName = "categorical",
        equal: Literal["examples", "classes"] = "examples",
    ) -> None:
        if memory_size is not None and memory_bytes is not None:
            raise ValueError(
                f"memory_size is {memory_size} and memory_bytes is {memory_bytes}: give one of them, as how many "
                "exemplars are kept follows from the bytes."
            )
        if replay_batch_size < 1:
            raise ValueError(f"replay_batch_size is {replay_batch_size}: give at least 1.")
        if candidates < 1:
            raise ValueError(f"candidates is {candidates}: give at least 1.")
        if not 0 <= label_share <= 1:
            raise ValueError(f"label_share is {label_share}: it is a share between 0 and 1.")
        self.likelihood = likelihood_by(likelihood)
        if temperature is not None and self.likelihood.temperature is None:
            raise ValueError(
                f"temperature is {temperature}, which has no effect on the {self.likelihood.name} likelihood: leave it "
                "out."
            )
        if temperature is not None and temperature <= 0:
            raise ValueError(f"temperature is {temperature}: give a positive number.")
        if memory_bytes is not None and not self.likelihood.has_classes:
            raise ValueError(
                f"memory_bytes codes classes, and the targets of the {self.likelihood.name} likelihood are numbers: "
                "give memory_size."
            )
        if spread < 0:
            raise ValueError(f"spread is {spread}: give 0 or more.")
        if equal not in ("examples", "classes"):
            raise ValueError(f"equal is {equal!r}: give examples or classes.")
        if equal == "classes" and not self.likelihood.has_classes:
            raise ValueError(
                f"equal is classes, and the targets of the {self.likelihood.name} likelihood are numbers: leave it out."
            )
        exemplars = MEMORY_SIZE if memory_size is None else memory_size
        self.memory = Memory(exemplars) if memory_bytes is None else Memory(0, memory_bytes)
        self.replay_batch_size = replay_batch_size
        self.label_share = label_share
        self.temperature = temperature or self.likelihood.temperature or 1.0
        self.holding = Holding(weight_prior, self.likelihood)
        self.selection = selection
        self.condensation = condensation
        self.spread = spread
        self.candidates = candidates
        self.posterior: Posterior | None = None
        self.memory_map: MemoryMap | None = None
        self._generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        self.equal = equal
        self._examples = 0  # of the experience under way
        self._class_weights: Tensor | None = None  # g, by class, where classes are equal
        self._origin = ""  # of what is in memory, where it is features
        self._rank, self._ranks, self._batches = 0, 1, 1

    @property
    def weight_prior(self) -> WeightPrior | None:
        """What holds the weights where the past needs them."""
        return self.holding.prior

    def check_budget(self, data: ExperienceData, classes: int) -> None:
        """Refuses a budget that will not hold an exemplar of each class, before anything is learned.

        Args:
            data: Examples like those that come.
            classes: Number of classes of the whole stream.

        Raises:
            ValueError: It holds less.
        """
        some = data.inputs(torch.arange(min(len(data.y), classes)))
        if self.condensation is not None and not can_be_averaged(some.dtype):
            warnings.warn(
                f"inputs of type {some.dtype} have no mean: exemplars are kept as they are; condensation null says so.",
                stacklevel=2,
            )
        self.memory.check_bytes(some, classes)
        if 0 < self.memory.budget < classes and self.memory.max_bytes is None:
            raise ValueError(
                f"memory_size is {self.memory.budget}, but data.benchmark has {classes} classes: give it at least one "
                "example per class, or 0 for no memory."
            )

    def begin_experience(
        self,
        data: ExperienceData,
        device: torch.device | str = "cpu",
        rank: int = 0,
        ranks: int = 1,
        batches: int = 1,
    ) -> None:
        """Gets ready to learn an experience.

        Args:
            data: Its training examples.
            device: Where the model is.
            rank: Which process this is.
            ranks: Number of processes; each replays its own part of a common draw.
            batches: How many times ``replay_batch_size`` they replay in a step, all together.

        Raises:
            ValueError: They are features of another backbone than those in memory.
        """
        if len(self.memory) and (new := _origin(data)) != self._origin:
            known, new = (f"features of {origin}" if origin else "inputs as they are" for origin in (self._origin, new))
            raise ValueError(
                f"the memory holds {known}, and what comes is {new}: the backbone has changed since; give the one that "
                "it was, or learn anew."
            )
        self.likelihood.look_at(data.y)
        self._examples = len(data.y)
        self._rank, self._ranks, self._batches = rank, ranks, batches
        if self.equal == "classes":
            self._class_weights = class_weights(self.memory.counts, data.y).to(device)
        self.memory.to(device)
        self.holding.to(device)

    def loss(
        self,
        module: nn.Module,
        predict: Predict,
        x: Tensor,
        y: Tensor,
        t: Tensor,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a step, per example.

        Args:
            module: The network, for its named parameters.
            predict: Its logits.
            x: New inputs, shape (B, ...).
            y: Their labels, shape (B,).
            t: Their task labels, shape (B,).
            weights: What each counts in their sum, shape (B,) (see ``bayesdual.stream.weights_in_mean``); None: the
                mean is taken.

        Returns:
            The loss, and its parts (detached, unweighted) by name.
        """
        z = self.replay()
        if z is None:
            return self.total_loss(module, self.criterion(predict(x, t), y, weights))
        logits = predict(torch.cat([x, z.x]), torch.cat([t, z.tasks]))
        return self.total_loss(module, self.criterion(logits[: len(y)], y, weights), logits[len(y) :], z)

    def criterion(self, logits: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean loss of new examples, for a host with a criterion of its own; without gradients that of any, plain.

        Args:
            logits: Logits or other outputs, shape (B, C).
            y: Targets, shape (B,).
            weights: As in :meth:`loss`.
        """
        losses = self.likelihood.loss(logits, y)
        if self._class_weights is not None and logits.requires_grad:
            losses = losses * self._class_weights[y]
        return losses.mean() if weights is None else losses @ weights.to(losses)

    def replay(self) -> Exemplars | None:
        """This process's part of a replay batch that all processes draw together; None while nothing is memorised."""
        if not len(self.memory):
            return None
        each = -(-self.replay_batch_size * self._batches // self._ranks)
        noise = self.spread if self.holding.residual is None else 0.0
        common = self.memory.draw(each * self._ranks, self._generator, noise, self._class_weights)
        if self._ranks == 1:
            return common
        return common[torch.arange(self._rank, len(common), self._ranks, device=common.y.device)]

    def total_loss(
        self, module: nn.Module, new: Tensor, logits: Tensor | None = None, z: Exemplars | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Joins the loss of new examples and that of replayed ones: :meth:`loss` for a host with its own forward pass.

        Args:
            module: The network, for its named parameters.
            new: Mean loss of the new examples.
            logits: Logits of the replayed examples, shape (R, C).
            z: What :meth:`replay` gave.

        Returns:
            As :meth:`loss`.
        """
        past, parts, residual = torch.zeros_like(new), {"new": new}, self.holding.residual
        if z is not None and logits is not None:
            labels = (
                self.likelihood.loss(logits, z.y).mean()
                if residual is None
                else residual.label_loss(module, logits, z.y)
            )
            soft = function_space_loss(logits, z.logits, z.weights, self.temperature, self.likelihood)
            past = self.label_share * labels + (1 - self.label_share) * soft
            parts |= {"labels": labels, "function_space": soft}
            past = past * self.memory.mean_weight(self._class_weights)
        held = self.holding.loss(module)
        if held is not None:
            past = past + held
            parts["weight_space"] = held
        share = self._share() if z is not None or held is not None else 1.0
        return share * new + (1 - share) * past, {name: value.detach() for name, value in parts.items()}

    def precondition(self, module: nn.Module) -> None:
        """Gives the gradients of a step to a prior of the weights that acts on them; to be called before the step.

        Args:
            module: The network, with the gradients of :meth:`loss`.
        """
        self.holding.precondition(module, self._share())

    def _share(self) -> float:
        """N / (N + N')."""
        return self._examples / (self._examples + self.memory.examples_seen)

    @torch.no_grad()
    def end_experience(
        self,
        module: nn.Module,
        predict: Predict,
        data: ExperienceData,
        experience: int,
        posterior: Posterior | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Scores the examples of the experience just learned, and takes what is to be kept into the memory.

        The module must be in eval mode, at the posterior mean.

        Args:
            module: The network.
            predict: Its logits.
            data: The experience's training examples.
            experience: Its index; pieces of one experience, as an online stream gives them, have the same.
            posterior: The weights' posterior, by the parameter names of ``module``; None if there is none.
            device: Where the model is.

        Raises:
            ValueError: The memory is smaller than the number of classes seen.
        """
        self._size_up(data)
        self._origin = _origin(data)
        self.measure_noise(predict, data, experience, device)
        self.measure_posterior(module, predict, data, experience, posterior, device)
        merging = self.condensation if self.likelihood.has_classes else None
        condense = Condenser(merging, module, self.memory.spread if self.spread else None, self._generator)
        plan = self.memory.plan(data.y, experience, self._generator)
        rows = candidate_rows(data.y, plan.room, self.candidates, self._generator)
        before = self.memory.exemplars
        self.memory.make_room(plan, condense)
        new = known = None
        if len(rows):
            known = score_examples(module, predict, data, rows, self.posterior, device, self.likelihood)
            new = new_exemplars(plan, data, rows, known, self.selection, condense, self._generator, self.likelihood)
        self.memory.take_in(plan, new, self._generator)
        self.memory.fit(condense, self._generator)
        after = self.memory.exemplars
        self.memory_map = (
            None if known is None else map_memory(data, rows, known, experience, before, after, self.likelihood)
        )
        if self.spread and self.likelihood.is_softmax:  # whose bound the residual is
            self.holding.find_residual(module, self.memory)
        noise = 1.0 if self.holding.residual is None else 0.0
        self.memory.relabel(predict, self.temperature, self._generator, self.likelihood, noise)
        carried = self.memory.max_bytes is None
        self.holding.update(
            module, predict, data, posterior, device, self._generator, None if carried else self._remembered
        )

    def measure_posterior(
        self,
        module: nn.Module,
        predict: Predict,
        data: ExperienceData,
        experience: int,
        posterior: Posterior | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Sets ``posterior`` to that of all data: of the experience just learned, and of what the memory stands for.

        Nothing else changes, so that a host that predicts by it may call this before :meth:`end_experience`, whose
        arguments these are. It is the optimizer's where that of all data cannot be known: nothing stands for the past,
        or the network does not keep the examples of a batch apart.
        """
        self.posterior = posterior
        if self.memory.examples_seen and not len(self.memory):
            return
        generator = torch.Generator().manual_seed(experience)  # of its own: what is learned stays the same
        past = stand_ins(self.memory, data.mean, data.std, generator)
        new = drawn_examples(data, SAMPLE, generator, device)
        known = posterior_of_past(
            module, predict, new if past is None else joined([past, new]), generator, likelihood=self.likelihood
        )
        self.posterior = known or posterior

    def memory_bytes(self) -> dict[str, int]:
        """Bytes that are carried to the next experience beside the network and its optimizer, by part."""
        parts = self.memory.bytes_by_part()
        if self.memory.max_bytes is None and (prior := self.holding.nbytes()) is not None:
            parts["prior"] = prior
        return parts

    @torch.no_grad()
    def measure_noise(
        self, predict: Predict, data: ExperienceData, experience: int, device: torch.device | str = "cpu"
    ) -> None:
        """Shows the likelihood what the network says of some examples of the experience just learned.

        A host that evaluates before :meth:`end_experience`, whose arguments these are, calls this before that.
        """
        if not self.likelihood.has_classes:
            rows = torch.randperm(len(data.y), generator=torch.Generator().manual_seed(experience))[:SAMPLE]
            f = predict(data.inputs(rows).to(device), data.tasks[rows].to(device)).float()
            self.likelihood.learned(f, data.y[rows].to(device), len(data.y), experience)

    def _size_up(self, data: ExperienceData) -> None:
        """Tells the memory what inputs are like, where its budget is one of bytes."""
        if self.memory.max_bytes is not None:
            rows = torch.randperm(len(data.y), generator=self._generator)[:SAMPLE]
            seen = {c for c, _ in self.memory.counts} | set(data.y.unique().tolist())
            self.memory.size_up(data.inputs(rows), data.y[rows], len(seen))

    def _remembered(self) -> TensorData:
        """Examples of all the past, as the memory stands for them."""
        z = self.memory.draw(SAMPLE, self._generator, noise=1.0)
        return TensorData(z.x, z.y, z.tasks, z.index)

    def state_dict(self) -> dict[str, Any]:
        """All that the next experience depends on; tensors and plain values only."""
        return {
            "memory": self.memory.state_dict(),
            **self.holding.state_dict(),
            "generator": self._generator.get_state(),
            "posterior": None if self.posterior is None else self.posterior.state_dict(),
            "origin": self._origin,
            "likelihood": {"name": self.likelihood.name, **self.likelihood.state_dict()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave.

        Raises:
            ValueError: The state is of a memory with another budget, or was made with another prior of the weights or
                another likelihood.
        """
        seen = state.get("likelihood", {"name": "categorical"})  # before 0.3 there was no other
        if seen["name"] != self.likelihood.name:
            raise ValueError(
                f"the checkpoint was made with the likelihood {seen['name']}, and algorithm.likelihood is "
                f"{self.likelihood.name}: give the same."
            )
        self.likelihood.load_state_dict(seen)
        self.holding.refuse_other(state)
        beside = {"spread": state["spread"]} if "spread" in state else {}  # where it was kept before
        self.memory.load_state_dict({**state["memory"], **beside})
        self.holding.load_state_dict(state, self.memory)
        self._generator.set_state(state["generator"].cpu())
        self._origin = state.get("origin", "")
        known = state.get("posterior")  # before 0.2 it was not kept
        self.posterior = None if known is None else Posterior.from_state_dict(known)


def _origin(data: ExperienceData) -> str:
    """What made the inputs, where they are features of a frozen backbone."""
    return getattr(data, "origin", "")
