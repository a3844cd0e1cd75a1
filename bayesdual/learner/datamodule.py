"""The stream as Lightning sees it: one datamodule that knows which experience is being learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from bayesdual.learner.unfamiliar import unfamiliar_data
from bayesdual.stream import (
    DatasetData,
    DatasetLoader,
    TensorData,
    TensorLoader,
    classes_of,
    experience_data,
    refuse_not_finite,
)

EVALUATION_BATCH = 1000


class StreamDataModule(LightningDataModule):
    """The experiences of an Avalanche benchmark, one after the other, for a single ``Trainer.fit``.

    Which experience is being learned, and how many epochs of it are done, is explicit state that travels in the
    checkpoint; the loaders are rebuilt from it at every epoch.

    Args:
        benchmark: An Avalanche benchmark with streams ``train`` and ``test`` and, for tuning, ``valid``; or what
            returns one: of ``bayesdual.scenarios``, ``avalanche.benchmarks.classic``, or a callable of your own.
        epochs: Epochs of training on each experience.
        batch_size: New examples in a training batch of each process: N processes learn from N times as many in a step.
        evaluate_on: Stream that ``fit`` evaluates on after each experience: ``test``, or ``valid`` for tuning.
        workers: Processes that read data which is not held as tensors.
        ood: Another benchmark, or what returns one, whose test data are of another kind: evaluations say how well they
            are told from those learned. It is gone through in every evaluation.

    Raises:
        ValueError: ``epochs`` or ``batch_size`` is not positive, or the benchmark lacks the stream asked for.
    """

    def __init__(
        self,
        benchmark: Callable[..., Any],
        epochs: int = 1,
        batch_size: int = 64,
        evaluate_on: str = "test",
        workers: int = 0,
        ood: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"data.{name} is {value}: give at least 1.")
        self._given = benchmark
        self.epochs = epochs
        self.batch_size = batch_size
        self.evaluate_on = evaluate_on
        self.workers = workers
        self._ood_given = ood
        self.experience = 0  # the one being learned
        self.epoch = 0  # of that experience, the one under way
        self._shuffle_seed = int(torch.randint(2**31, ()))
        self._benchmark: Any = None
        self._classes_and_sizes: tuple[list[list[int]], list[int]] | None = None
        self._train: tuple[int, TensorData | DatasetData] | None = None
        self._evaluation: dict[str, list[TensorData | DatasetData]] = {}
        self._ood: list[TensorData | DatasetData] = []

    @property
    def benchmark(self) -> Any:
        """The Avalanche benchmark, made when first asked for."""
        if self._benchmark is None:
            self._benchmark = _made(self._given, "data.benchmark")
            for name in ("train", self.evaluate_on):
                self.stream(name)
        return self._benchmark

    def stream(self, name: str) -> list[Any]:
        """Returns the experiences of a stream.

        Raises:
            ValueError: The benchmark has no such stream, or an empty one.
        """
        experiences = list(getattr(self.benchmark, f"{name}_stream", ()))
        if not experiences:
            hint = " (a share of the training data: --data.benchmark.init_args.validation 0.1)"
            raise ValueError(
                f"data.benchmark has no experiences in a stream {name!r}: "
                f"give a benchmark that has{hint if name == 'valid' else ''}."
            )
        return experiences

    @property
    def n_experiences(self) -> int:
        return len(self.stream("train"))

    @property
    def last_epoch_of_experience(self) -> bool:
        return self.epoch == self.epochs - 1

    @property
    def finished(self) -> bool:
        return self.experience == self.n_experiences

    def restart(self) -> None:
        """Goes back to the beginning."""
        self.experience = self.epoch = 0

    def advance(self) -> None:
        """Goes to the next epoch, of the next experience if this one's are done."""
        self.experience += self.last_epoch_of_experience
        self.epoch = (self.epoch + 1) % self.epochs

    def describe(self) -> dict[str, Any]:
        """What tells this stream from another: plain values, compared when a checkpoint is loaded."""
        if self._classes_and_sizes is None:
            train = self.stream("train")
            self._classes_and_sizes = [classes_of(e) for e in train], [*map(_size, train)]
        classes, sizes = self._classes_and_sizes
        return {"epochs": self.epochs, "classes": classes, "sizes": sizes}

    def train_data(self) -> TensorData | DatasetData:
        """The training data of the current experience (of the last one, once all are learned).

        Raises:
            ValueError: There are no examples, or an input that is not finite, or a label that was not announced.
        """
        current = min(self.experience, self.n_experiences - 1)
        if self._train is None or self._train[0] != current:
            name = f"experience {current + 1} of data.benchmark"
            data = experience_data(self.stream("train")[current])
            if len(data) == 0:
                raise ValueError(f"{name} has no training examples: leave it out.")
            announced = self.describe()["classes"][current]
            if strays := set(data.y.unique().tolist()).difference(announced):
                raise ValueError(
                    f"{name} has the label {min(strays)}, but its classes_in_this_experience are {announced}: give it "
                    "all that it has."
                )
            _refuse_not_finite(data, name)
            self._train = (current, data)
        return self._train[1]

    def evaluation_data(self, stream: str) -> list[TensorData | DatasetData]:
        """The data of all experiences of an evaluation stream, read once.

        Raises:
            ValueError: An input is not finite, or labels are no classes.
        """
        if stream not in self._evaluation:
            data = [experience_data(e) for e in self.stream(stream)]
            for number, of_one in enumerate(data, start=1):
                _refuse_not_finite(of_one, f"experience {number} of the stream {stream!r} of data.benchmark")
            self._evaluation[stream] = data
        return self._evaluation[stream]

    @property
    def ood_data(self) -> list[TensorData | DatasetData]:
        """The data of another kind, read once; empty where none are given. Errors as :func:`unfamiliar_data`."""
        if self._ood_given is not None and not self._ood:
            self._ood = unfamiliar_data(_made(self._ood_given, "data.ood"), self.evaluation_data("test"))
        return self._ood

    # -- what Lightning calls

    def train_dataloader(self) -> TensorLoader | DatasetLoader:
        seed = (self._shuffle_seed + self.experience * self.epochs + self.epoch) % 2**63
        return self._loader(self.train_data(), self.batch_size, seed)

    def val_dataloader(self) -> list[TensorLoader | DatasetLoader]:
        validating = self.trainer is not None and self.trainer.state.fn == TrainerFn.VALIDATING
        return self._evaluation_loaders("valid" if validating else self.evaluate_on, self.ood_data)

    def test_dataloader(self) -> list[TensorLoader | DatasetLoader]:
        return self._evaluation_loaders("test", self.ood_data)

    def predict_dataloader(self) -> list[TensorLoader | DatasetLoader]:
        return self._evaluation_loaders("test")

    def state_dict(self) -> dict[str, Any]:
        return {
            "experience": self.experience,
            "epoch": self.epoch,
            "shuffle_seed": self._shuffle_seed,
            "stream": self.describe(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores where in the stream training stood.

        Raises:
            ValueError: The checkpoint is of another stream.
        """
        theirs, ours = state_dict["stream"], self.describe()
        fitting = self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING
        different = [k for k in ours if theirs.get(k) != ours[k] and (fitting or k != "epochs")]
        if different:
            key = different[0]
            mine = "data.epochs" if key == "epochs" else f"the {key} of data.benchmark"
            raise ValueError(
                f"the checkpoint is of another stream: {key} there are {theirs.get(key)}, but {mine} "
                f"{ours[key]}; give the configuration that the checkpoint was made with."
            )
        self.experience = state_dict["experience"]
        self.epoch = state_dict["epoch"]
        self._shuffle_seed = state_dict["shuffle_seed"]

    def _evaluation_loaders(
        self, stream: str, beside: Sequence[TensorData | DatasetData] = ()
    ) -> list[TensorLoader | DatasetLoader]:
        return [
            self._loader(data, EVALUATION_BATCH if isinstance(data, TensorData) else self.batch_size)
            for data in (*self.evaluation_data(stream), *beside)
        ]

    def _loader(
        self, data: TensorData | DatasetData, batch_size: int, seed: int | None = None
    ) -> TensorLoader | DatasetLoader:
        """This process's shard of the data, in the order of the seed, or in the data's if there is none."""
        rank, ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if isinstance(data, TensorData):
            return TensorLoader(data, batch_size, seed, rank, ranks)
        return DatasetLoader(data, batch_size, seed, rank, ranks, self.workers)


def _made(given: Any, key: str) -> Any:
    """The benchmark that is given, or that what is given returns."""
    made = given if hasattr(given, "train_stream") or not callable(given) else given()
    if not hasattr(made, "train_stream"):
        raise ValueError(
            f"{key} gives {made!r:.80}, which is no Avalanche benchmark: name a callable that returns one, with "
            "streams train and test."
        )
    return made


def _refuse_not_finite(data: TensorData | DatasetData, name: str) -> None:
    """Looks at data that are held; those behind a loader are looked at as they are read."""
    if isinstance(data, TensorData):
        refuse_not_finite(data.x, torch.arange(len(data)), name)


def _size(experience: Any) -> int:
    return len(experience.dataset) if hasattr(experience, "dataset") else len(experience_data(experience))
