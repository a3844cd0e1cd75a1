"""The stream as Lightning sees it: one datamodule that knows which experience is being learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from bayesdual.learner.past import NOTHING, Past, evaluated_again, first_difference, parts, past_of
from bayesdual.learner.reading import StreamReader
from bayesdual.likelihoods import Likelihood
from bayesdual.stream import (
    DatasetData,
    DatasetLoader,
    TensorData,
    TensorLoader,
    weights_in_mean,
)

EVALUATION_BATCH = 1000


class StreamDataModule(LightningDataModule):
    """The experiences of an Avalanche benchmark, one after the other, for a single ``Trainer.fit``.

    Which experience is being learned, and how many epochs of it and batches of those are done, is explicit state that
    travels in the checkpoint; the loaders are rebuilt from it at every epoch.

    A stream may come after others that were learned before: its experiences are counted on from theirs. A learner that
    has learned to the end of one takes the next in another ``Trainer.fit``; from a checkpoint, :meth:`after` says so.

    Args:
        benchmark: An Avalanche benchmark with streams ``train`` and ``test`` and, for tuning, ``valid``; or what
            returns one: of ``bayesdual.scenarios``, ``avalanche.benchmarks.classic``, or a callable of your own. Where
            there are several experiences to learn and one to evaluate, that is evaluated after each, and its scores
            stand in the column of the first.
        epochs: Epochs of training on each experience.
        batch_size: New examples in a training batch.
        batch_size_of: Of ``all`` processes together, each taking its part, so that a step is the same whatever their
            number; or of ``each``, so that N processes learn from N times as many, replayed ones included.
        evaluate_on: Stream that ``fit`` evaluates on after each experience: ``test``, or ``valid`` for tuning.
        evaluate_every: After how many experiences ``fit`` evaluates all of them again: after every one, every second
            one, and so on, and after the last. In between it evaluates the one just learned and the next alone.
        workers: Processes that read data which is not held as tensors.
        ood: Another benchmark, or what returns one, whose test data are of another kind: evaluations say how well they
            are told from those learned. It is gone through in every evaluation.

    Raises:
        ValueError: ``epochs`` or ``batch_size`` is not positive, ``batch_size_of`` is another word, or the benchmark
            lacks the stream asked for.
    """

    def __init__(
        self,
        benchmark: Callable[..., Any],
        epochs: int = 1,
        batch_size: int = 64,
        batch_size_of: Literal["all", "each"] = "all",
        evaluate_on: str = "test",
        evaluate_every: int = 1,
        workers: int = 0,
        ood: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("evaluate_every", evaluate_every)):
            if value < 1:
                raise ValueError(f"data.{name} is {value}: give at least 1.")
        if batch_size_of not in ("all", "each"):
            raise ValueError(f"data.batch_size_of is {batch_size_of!r}: give all, or each.")
        self._reader = StreamReader(benchmark, evaluate_on, ood)
        self.epochs = epochs
        self.batch_size = batch_size
        self.batch_size_of = batch_size_of
        self.evaluate_on = evaluate_on
        self.evaluate_every = evaluate_every
        self.workers = workers
        self.experience = 0  # the one being learned, counted from the first that ever was
        self.epoch = 0  # of that experience, the one under way
        self.batch = 0  # of that epoch, the one that its loader begins with
        self.evaluated: list[int] = []  # the experience that each of the evaluation loaders made last is of
        self.evaluated_in_common = False  # by those
        self._past: Past = NOTHING
        self._goes_on = False
        self._earlier: tuple[StreamDataModule | None, ...] = ()  # the streams of the past, the newest last
        self._shuffle_seed = int(torch.randint(2**31, ()))

    @property
    def benchmark(self) -> Any:
        """The Avalanche benchmark, made when first asked for."""
        return self._reader.benchmark

    @property
    def likelihood(self) -> Likelihood:
        """Of the targets."""
        return self._reader.likelihood

    def stream(self, name: str) -> list[Any]:
        """Returns the experiences of a stream.

        Raises:
            ValueError: The benchmark has no such stream, or an empty one.
        """
        return self._reader.stream(name)

    @property
    def n_experiences(self) -> int:
        """Of this stream and of the past."""
        return len(self._past) + len(self.stream("train"))

    @property
    def n_learned_before(self) -> int:
        """Experiences of the past, before those of this stream."""
        return len(self._past)

    @property
    def n_streams_before(self) -> int:
        """Streams of the past."""
        return len(self._past.streams)

    @property
    def n_classes(self) -> int:
        """One more than the largest label, of the past and of this stream; 0 of targets that are numbers."""
        return 1 + max((c for classes in self.describe()["classes"] for c in classes), default=-1)

    @property
    def awaits_checkpoint(self) -> bool:
        """Whether it comes after others that are not known yet."""
        return self._goes_on and not self._past

    @property
    def epochs_done(self) -> int:
        """Epochs of this stream that are done."""
        return (self.experience - len(self._past)) * self.epochs + self.epoch

    @property
    def epochs_to_go(self) -> int:
        return len(self.stream("train")) * self.epochs - self.epochs_done

    @property
    def last_epoch_of_experience(self) -> bool:
        return self.epoch == self.epochs - 1

    @property
    def finished(self) -> bool:
        return self.experience == self.n_experiences

    def restart(self) -> None:
        """Goes back to the beginning."""
        self.experience, self.epoch, self.batch = len(self._past), 0, 0

    def advance(self) -> None:
        """Goes to the next epoch, of the next experience if this one's are done."""
        self.experience += self.last_epoch_of_experience
        self.epoch = (self.epoch + 1) % self.epochs
        self.batch = 0

    def of_targets(self, likelihood: Likelihood) -> None:
        """Takes targets for what a likelihood is of; a learner says so before it reads any."""
        self._reader.of_targets(likelihood)
        for stream in self._earlier:
            if stream is not None:
                stream.of_targets(likelihood)

    # -- after other streams

    def after(self, *earlier: StreamDataModule | None) -> StreamDataModule:
        """Says that this stream comes after those that a checkpoint has learned, and returns it.

        ``Trainer.fit`` with that checkpoint then learns this stream, or goes on where it was stopped in it.

        Args:
            earlier: Those streams, the newest last; their test data are evaluated again, their training data are not
                needed. None in place of one, or leaving out the oldest, leaves them out of the evaluations.
        """
        self._goes_on, self._earlier = True, earlier
        return self

    def follow(self, learned: StreamDataModule) -> None:
        """Comes after a stream that has just been learned to its end; its test data are evaluated again."""
        self.after(*(self._earlier or (*learned._earlier, learned)))
        self._past = past_of(parts(learned.describe()))
        self._shuffle_seed = learned._shuffle_seed
        self.restart()

    def standing_at(self, state_dict: dict[str, Any]) -> StreamDataModule:
        """A copy that stands where a checkpoint does; this one stays where it is.

        Raises:
            ValueError: The checkpoint is of another stream.
        """
        self._own_fingerprint()  # read once, for both
        self.own_description()
        placed = copy(self)
        placed.load_state_dict(state_dict)
        return placed

    def describe(self) -> dict[str, Any]:
        """What tells this stream, and those before it, from others: plain values, compared with a checkpoint's."""
        return self._past.followed_by(self.own_description())

    def own_description(self) -> dict[str, Any]:
        """That of this stream alone."""
        return {"epochs": self.epochs, **self._reader.describe()}

    def _own_fingerprint(self) -> str | None:
        """Which data these are, of a stream that comes after others: one of another month may look alike."""
        return self._reader.fingerprint() if self._goes_on else None

    def train_data(self) -> TensorData | DatasetData:
        """The training data of the current experience (of the last one, once all are learned).

        Raises:
            ValueError: There are no examples, or an input that is not finite, or a label that was not announced.
        """
        return self._reader.train_data(min(self.experience, self.n_experiences - 1) - len(self._past))

    def evaluation_data(self, stream: str) -> list[TensorData | DatasetData]:
        """The data of all experiences of an evaluation stream, without those of the past, read once.

        Raises:
            ValueError: An input is not finite, or labels are no classes.
        """
        return self._reader.evaluation_data(stream)

    @property
    def ood_data(self) -> list[TensorData | DatasetData]:
        """The data of another kind, read once; empty where none are given.

        Raises:
            ValueError: They are not like the stream's: other shapes, types or means, NaN, or task labels.
        """
        return self._reader.ood_data()

    def evaluated_before(self) -> TensorData | DatasetData | None:
        """What the experience before the current one is evaluated on; None of the first, or where there is no such."""
        if self.experience > len(self._past) and self.evaluates_in_common(self.evaluate_on):
            return None
        return self._evaluations(self.evaluate_on).get(self.experience - 1)

    def evaluated_so_far(self) -> list[TensorData | DatasetData]:
        """What the experiences learned, the current one included, are evaluated on, where that can be had."""
        return [data for k, data in self._evaluations(self.evaluate_on).items() if k <= self.experience]

    def evaluates_in_common(self, stream: str) -> bool:
        """Whether one evaluation experience is common to several to learn; it stands at the first of them."""
        return len(self.evaluation_data(stream)) == 1 < len(self.stream("train"))

    # -- several processes

    @property
    def batches_of_a_step(self) -> int:
        """How many batches of ``batch_size`` all processes together learn from at a time."""
        return 1 if self.batch_size_of == "all" else self._rank_of()[1]

    @property
    def examples_of_a_batch(self) -> int:
        """New examples that all processes together learn from at a time."""
        return self.batch_size * self.batches_of_a_step

    def weights(self, batch: int) -> Tensor | None:
        """What this process's examples of a batch, counted from where the loader begins, count in its mean."""
        before = (self.batch + batch) * self.examples_of_a_batch
        return weights_in_mean(min(self.examples_of_a_batch, len(self.train_data()) - before), *self._rank_of())

    def _rank_of(self) -> tuple[int, int]:
        """Which process this is, of how many."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    # -- what Lightning calls

    def train_dataloader(self) -> TensorLoader | DatasetLoader:
        seed = (self._shuffle_seed + self.experience * self.epochs + self.epoch) % 2**63
        return self._loader(self.train_data(), self.examples_of_a_batch // self._rank_of()[1], seed, self.batch)

    def val_dataloader(self) -> list[TensorLoader | DatasetLoader]:
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.VALIDATING:
            return self._evaluation_loaders("valid", self.ood_data)
        done = self.experience + 1
        common = self.evaluates_in_common(self.evaluate_on)
        in_between = done % self.evaluate_every and done < self.n_experiences and not common
        if in_between and not (self.trainer is not None and self.trainer.sanity_checking):
            return self._evaluation_loaders(self.evaluate_on, only=(self.experience, done))
        return self._evaluation_loaders(self.evaluate_on, self.ood_data)

    def test_dataloader(self) -> list[TensorLoader | DatasetLoader]:
        return self._evaluation_loaders("test", self.ood_data)

    def predict_dataloader(self) -> list[TensorLoader | DatasetLoader]:
        return self._evaluation_loaders("test")

    def state_dict(self) -> dict[str, Any]:
        return {
            "experience": self.experience,
            "epoch": self.epoch,
            "shuffle_seed": self._shuffle_seed,
            "stream": self.describe() | {"fingerprint": self._own_fingerprint()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores where in the stream training stood: in the middle of it, or at its beginning, after others.

        Raises:
            ValueError: The checkpoint is of another stream.
        """
        for name in ("experience", "epoch", "shuffle_seed"):
            if not isinstance(state_dict.get(name), int):
                raise ValueError(f"the checkpoint is damaged: the stream's {name} is {state_dict.get(name)!r:.40}.")
        theirs, ours = parts(state_dict["stream"]), self.own_description()
        fitting = self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING
        self._shuffle_seed = state_dict["shuffle_seed"]
        if self._goes_on and state_dict["stream"].get("fingerprint") != self._own_fingerprint():
            if state_dict["experience"] != len(state_dict["stream"]["sizes"]):
                raise ValueError(
                    f"the checkpoint is in the middle of another stream, in experience {state_dict['experience'] + 1} "
                    f"of {len(state_dict['stream']['sizes'])}: finish that first, with the data that it was begun with."
                )
            self._past = past_of(theirs)
            self.restart()
            return
        if not fitting and any(first_difference(stream, ours, but="epochs") is None for stream in theirs):
            return
        if key := first_difference(theirs[-1], ours, but=None if fitting else "epochs"):
            mine = "data.epochs" if key == "epochs" else f"the {key} of data.benchmark"
            raise ValueError(
                f"the checkpoint is of another stream: {key} there are {theirs[-1].get(key)}, but {mine} "
                f"{ours[key]}; give the configuration that the checkpoint was made with."
            )
        if theirs[:-1] and fitting and not self._goes_on:
            raise ValueError(
                "the checkpoint has learned other streams before this one: say so by StreamDataModule.after(), or go "
                "on with `python -m bayesdual learn`."
            )
        self._past = past_of(theirs[:-1])
        self.experience = state_dict["experience"]
        self.epoch = state_dict["epoch"]

    def _evaluation_loaders(
        self, stream: str, beside: Sequence[TensorData | DatasetData] = (), only: Sequence[int] | None = None
    ) -> list[TensorLoader | DatasetLoader]:
        known = self._evaluations(stream)
        self.evaluated_in_common = self.evaluates_in_common(stream)
        if only is not None:
            known = {experience: known[experience] for experience in only if experience in known}
        self.evaluated = [*known, *range(self.n_experiences, self.n_experiences + len(beside))]
        return [
            self._loader(data, EVALUATION_BATCH if isinstance(data, TensorData) else self.batch_size)
            for data in (*known.values(), *beside)
        ]

    def _evaluations(self, stream: str) -> dict[int, TensorData | DatasetData]:
        """The data of an evaluation stream by experience, those of the past included where they can be had."""
        earlier = [None if of_past is None else of_past.evaluation_data(stream) for of_past in self._earlier]
        own = enumerate(self.evaluation_data(stream), start=len(self._past))
        return evaluated_again(self._past, earlier) | dict(own)

    def _loader(
        self, data: TensorData | DatasetData, batch_size: int, seed: int | None = None, first: int = 0
    ) -> TensorLoader | DatasetLoader:
        """This process's shard of the data, in the order of the seed, or in the data's if there is none."""
        rank, ranks = self._rank_of()
        if isinstance(data, TensorData):
            return TensorLoader(data, batch_size, seed, rank, ranks, first)
        return DatasetLoader(data, batch_size, seed, rank, ranks, first, self.workers)
