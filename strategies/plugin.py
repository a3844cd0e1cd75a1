"""The Avalanche host: a plugin that gives the algorithm to any supervised strategy, with any optimizer.

Avalanche calls forward, criterion, backward and step itself, so the algorithm acts between them:

    before_forward     IVON draws a sample of the weights; replayed examples join the new ones
    after_forward      they part again: criterion, metrics and other plugins see the new examples only
    before_backward    the criterion's loss becomes the algorithm's
    after_backward     the weights are the mean again
    before_update      a prior that acts on gradients does so

IVON is the posterior. With another optimizer there is none, and examples are scored by the curvature of their loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sized
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import torch
from avalanche.benchmarks import OnlineCLExperience
from avalanche.distributed import DistributedHelper
from avalanche.models.utils import is_multi_task_module
from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bayesdual.agreement import refuse_differing
from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVON
from bayesdual.likelihoods import Likelihood
from bayesdual.memory import classes_or_one
from bayesdual.models import evaluating
from bayesdual.posterior import Posterior
from bayesdual.prediction import ask, drift_between, logits_of, seen, sentence_of_drift, some_of
from bayesdual.schedule import lower_learning_rate
from bayesdual.stream import DatasetData, Inputs, Predict, TensorData, experience_data, normalise, refuse_not_finite
from bayesdual.tensors import grow


class BayesDualPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Gives the algorithm to an Avalanche strategy::

        Naive(model=model, optimizer=IVONByRule().make(model.parameters(), examples=12000, steps=188),
              plugins=[BayesDualPlugin(BayesDual(memory_size=200))], ...)

    The strategy's criterion is the loss of the new examples; replayed ones have the algorithm's. With another
    likelihood than classes by softmax it has to be the algorithm's, too: ``criterion=algorithm.criterion``. As
    everywhere in Avalanche, the optimizer's state lives on from one experience to the next. Of a parameter that has
    grown, Avalanche forgets the state; IVON's is kept, and what is new of it starts at the prior.

    Every experience the strategy trains on is one for the algorithm, but the pieces that Avalanche's online streams
    cut an experience into are parts of one; without access to the task boundaries, all of them are.

    Args:
        algorithm: What is remembered of the past, and how.
        task_free: The stream's experiences are mere pieces of one, whatever they say.
        lr_end: Learning rate at the end of each experience, as a share of that at its beginning; it falls linearly.
            1 leaves it alone, for those who have a schedule of their own.

    Attributes:
        drift: What told each experience from the one before, before it was learned, where that is known to have a test
            experience: in the stream ``test`` of its benchmark, or in an evaluation of that (see
            :func:`bayesdual.prediction.drift_between`). A warning says where inputs are others and no classes are new.

    Raises:
        ValueError: ``lr_end`` is negative.
    """

    def __init__(self, algorithm: BayesDual, task_free: bool = False, lr_end: float = 0.0) -> None:
        super().__init__()
        if lr_end < 0:
            raise ValueError(f"lr_end is {lr_end}: it is a share of the learning rate, 0 or more.")
        self.algorithm = algorithm
        self.task_free = task_free
        self.lr_end = lr_end
        self._experience = -1  # the algorithm's: pieces of one have the same
        self._data: Any = None  # TensorData or DatasetData, while an experience is learned
        self._highest_label = -1  # of them
        self.drift: list[dict[str, Any]] = []
        self._evaluated: dict[int, Any] = {}  # experiences of the stream test, by number
        self._state_by_name: dict[str, dict[str, Any]] = {}  # the optimizer's, to outlive a head that grows
        self._sample = ExitStack()  # of the weights, while they are one
        self._new_batch: list[Tensor] = []
        self._replayed: Any = None
        self._replayed_logits: Tensor | None = None

    # -- the experience

    def before_train_dataset_adaptation(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        """Looks at the experience before the model grows for it, and notes the optimizer's state by name.

        Raises:
            ValueError: The experience cannot be learned from, or not on several processes.
        """
        if DistributedHelper.world_size > 1 and not isinstance(strategy.model, DistributedDataParallel):
            raise ValueError(
                f"there are {DistributedHelper.world_size} processes, and each would learn a model of its own: wrap "
                "the model by torch.nn.parallel.DistributedDataParallel before the strategy."
            )
        likelihood = self.algorithm.likelihood
        needs_own = not likelihood.is_softmax or self.algorithm.equal == "classes"
        if needs_own and strategy._criterion != self.algorithm.criterion:
            raise ValueError(
                f"the likelihood is {likelihood.name} and {self.algorithm.equal} are equal, but the strategy's "
                f"criterion is {strategy._criterion!r:.60}: give criterion=algorithm.criterion."
            )
        self._data = _training_data(strategy.experience, strategy, likelihood)
        self._highest_label = int(self._data.y.max()) if likelihood.is_softmax else -1
        # Not of the model's parameters: a head may have grown while it was evaluated.
        known, state = strategy.optimized_param_id or {}, strategy.optimizer.state
        self._state_by_name = {n: state[p] for n, p in known.items() if p in state}

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        """Begins an experience.

        Raises:
            ValueError: IVON is to draw several samples a step.
        """
        optimizer = strategy.optimizer
        if self._experience < 0 or not (self.task_free or _is_a_continuation(strategy.experience)):
            self._experience += 1
        if isinstance(optimizer, IVON):
            if optimizer.mc_samples != 1:
                raise ValueError(
                    f"IVON has mc_samples={optimizer.mc_samples}, but Avalanche's training loop has one forward pass "
                    "a step: give mc_samples=1."
                )
            self._carry_posterior(strategy.model, optimizer)
        self._agree()
        self._look_for_drift(strategy)
        ranks = DistributedHelper.world_size  # each with a batch of its own, as Avalanche has it
        self.algorithm.begin_experience(self._data, strategy.device, DistributedHelper.rank, ranks, batches=ranks)

    def after_eval_exp(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        experience: Any = strategy.experience
        if getattr(getattr(experience, "origin_stream", None), "name", None) == "test":
            self._evaluated[experience.current_experience] = experience

    def _look_for_drift(self, strategy: SupervisedTemplate) -> None:
        """Compares an experience that is about to be learned with what the one before is evaluated on."""
        known = {c for c, _ in self.algorithm.memory.counts}
        last = _evaluated_before(strategy.experience, self._evaluated) if known else None
        before = None if last is None else experience_data(last, self.algorithm.likelihood.targets)
        if before is None or min(len(before), len(self._data)) < 2:
            return
        model, generator = strategy.model, torch.Generator().manual_seed(self._experience)
        both = []
        for data in (before, self._data):
            x, y, t = (part.to(strategy.device) for part in some_of([data], generator))
            both.append(seen(model, predict_of(model, Inputs.of(data)), self.algorithm.likelihood, x, y, t))
        found = {"experience": self._experience + 1, **drift_between(both[0], both[1], generator)}
        self.drift.append(found)
        if found["drifts"] and not set(classes_or_one(self._data.y).tolist()).difference(known):
            warnings.warn(f"{sentence_of_drift(found)}.", stacklevel=2)

    def after_training_exp(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        """Scores the experience's examples and updates the memory.

        Raises:
            ProcessesDiffer: Several processes have come to hold different networks.
        """
        model, posterior = strategy.model, Posterior.of(strategy.model, strategy.optimizer)
        with evaluating(model):
            self.algorithm.end_experience(
                model, self._predict(strategy), self._data, self._experience, posterior, strategy.device
            )
        self._data = None
        self._agree()
        held = {"the network": dict(model.named_parameters()), "what is remembered": self.algorithm.state_dict()}
        refuse_differing(held, "seed them alike, and give them the same code and the same data.")

    def _agree(self) -> None:
        """Gives all processes the memory, the prior and the draws to come that the first one has."""
        if DistributedHelper.world_size > 1:
            self.algorithm.load_state_dict(DistributedHelper.broadcast_object(self.algorithm.state_dict()))

    def _carry_posterior(self, model: nn.Module, optimizer: IVON) -> None:
        """Gives parameters that have grown the state they had, and the prior where they are new."""
        starts = {p: {"hess": g["hess_init"], "momentum": 0.0} for g in optimizer.param_groups for p in g["params"]}
        for name, p in model.named_parameters():
            if name in self._state_by_name and p in starts and not optimizer.state.get(p):
                old = self._state_by_name[name]
                optimizer.state[p] = old | {k: grow(old[k], p, start) for k, start in starts[p].items() if k in old}
        self._state_by_name = {}

    # -- the step

    def before_training_epoch(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        if isinstance(strategy.optimizer, IVON):
            strategy.training_epoch = partial(self._epoch_that_ends_at_the_mean, strategy)

    def before_training_iteration(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        clock, steps = strategy.clock, len(cast(Sized, strategy.dataloader))
        done = (clock.train_exp_epochs + clock.train_epoch_iterations / steps) / strategy.train_epochs
        lower_learning_rate(strategy.optimizer, self.lr_end, done)

    def before_forward(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        """Lets IVON draw a sample of the weights, and replayed examples join the new ones.

        Raises:
            ValueError: An input is not finite.
        """
        x = cast(Tensor, strategy.mb_x)
        refuse_not_finite(x, torch.arange(len(x)), f"a batch of {_name(strategy)}")
        if isinstance(strategy.optimizer, IVON):
            self._sample.enter_context(strategy.optimizer.sampled_params(train=True))
        self._replayed = z = self.algorithm.replay()
        if z is None:
            return
        x, y, *t = self._new_batch = cast(list[Tensor], strategy.mbatch)
        strategy.mbatch = [torch.cat([x, self._inputs(z.x)]), y, *[torch.cat([labels, z.tasks]) for labels in t]]

    def after_forward(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        """Parts the new examples from those replayed, once the output is logits.

        Raises:
            ValueError: A label of the experience is beyond the model's classes.
        """
        strategy.mb_output = logits_of(strategy.mb_output)
        _refuse_beyond(cast(Tensor, strategy.mb_output), self._highest_label, _name(strategy))
        if self._replayed is not None:
            strategy.mbatch = self._new_batch
            n, output = len(strategy.mb_y), cast(Tensor, strategy.mb_output)
            strategy.mb_output, self._replayed_logits = output[:n], output[n:]

    def after_eval_forward(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        """Looks at the labels before a criterion does, once the output is logits.

        Raises:
            ValueError: One is beyond the model's classes.
        """
        strategy.mb_output = logits_of(strategy.mb_output)
        if self.algorithm.likelihood.is_softmax:
            highest = int(cast(Tensor, strategy.mb_y).max())
            _refuse_beyond(cast(Tensor, strategy.mb_output), highest, "the experience that is evaluated")

    def before_backward(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        strategy.loss, _ = self.algorithm.total_loss(
            strategy.model, strategy.loss, self._replayed_logits, self._replayed
        )
        self._replayed = self._replayed_logits = None

    def after_backward(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        self._sample.close()

    def before_update(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        self.algorithm.precondition(strategy.model)

    def _epoch_that_ends_at_the_mean(self, strategy: SupervisedTemplate, **kwargs: Any) -> None:
        """An epoch with IVON: Avalanche calls no hook when its loop fails while the weights are a sample."""
        del strategy.training_epoch  # what is left is the strategy's own
        with self._sample:
            strategy.training_epoch(**kwargs)

    # -- what is saved, and what the model is given

    def state_dict(self) -> dict[str, Any]:
        """All that the next experience depends on, but for the model and the optimizer."""
        return {"algorithm": self.algorithm.state_dict(), "experience": self._experience, "drift": self.drift}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave.

        Raises:
            ValueError: The state is of a memory with another budget.
        """
        self.algorithm.load_state_dict(state["algorithm"])
        self._experience = state["experience"]
        self.drift = list(state.get("drift", ()))

    def _predict(self, strategy: SupervisedTemplate) -> Predict:
        return predict_of(strategy.model, Inputs.of(self._data))

    def _inputs(self, x: Tensor) -> Tensor:
        """What the dataset's items would be: the memory holds images that come as tensors in uint8."""
        return normalise(x, self._data.mean, self._data.std)


def _evaluated_before(experience: Any, evaluated: Mapping[int, Any]) -> Any:
    """What the experience before is evaluated on, or has been; None where that is not known."""
    k = getattr(experience, "current_experience", 0)
    if isinstance(experience, OnlineCLExperience) or k < 1:
        return None
    benchmark = getattr(getattr(experience, "origin_stream", None), "benchmark", None)
    train, test = (list(getattr(benchmark, f"{name}_stream", ())) for name in ("train", "test"))
    return test[k - 1] if k < len(train) == len(test) else evaluated.get(k - 1)


def predict_of(model: nn.Module, inputs: Inputs) -> Predict:
    """The logits of an Avalanche model, of inputs as its experiences give them and their task labels."""
    told = is_multi_task_module(model)
    return lambda x, t: ask(model, inputs.normalised(x), **({"task_labels": t} if told else {}))


def _training_data(experience: Any, strategy: SupervisedTemplate, likelihood: Likelihood) -> TensorData | DatasetData:
    """The data of an experience, seen to be fit for training."""
    data = experience_data(experience, likelihood.targets)
    name = _name(strategy)
    if len(data.y) == 0:
        raise ValueError(f"{name} has no training examples: leave it out.")
    if is_multi_task_module(strategy.model) and not hasattr(experience, "task_labels"):
        raise ValueError(
            f"the model has a head for each task, but {name} has no task labels: make the benchmark with task labels "
            "(avalanche.benchmarks.with_task_labels), or give a model with one head."
        )
    if isinstance(data, DatasetData) and data.parts is not None and not getattr(strategy, "takes_parts", False):
        raise ValueError(
            f"an input of {name} is {data.parts}, which {type(strategy).__name__} does not take: give "
            "BayesDualStrategy, which does, or a dataset whose inputs are one tensor."
        )
    return data


def _name(strategy: SupervisedTemplate) -> str:
    """What the experience that is learned is called in an error."""
    return f"experience {strategy.clock.train_exp_counter} of the stream"


def _refuse_beyond(logits: Tensor, label: int, name: str) -> None:
    if label >= logits.shape[1]:
        raise ValueError(
            f"{name} has the label {label}, but the model tells the classes 0 to {logits.shape[1] - 1} apart: give it "
            "as many, or, if its head grows, name all classes in the experience's classes_in_this_experience."
        )


def _is_a_continuation(experience: Any) -> bool:
    """Whether an experience is but a further piece of the one before, as far as a learner may know."""
    if not isinstance(experience, OnlineCLExperience):
        return False
    return not (experience.access_task_boundaries and experience.is_first_subexp)
