"""The stream as Lightning sees it: one datamodule that knows which experience is being learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from bayesdual.stream import DatasetData, Labelled, TensorData, TensorLoader, classes_of, experience_data

EVALUATION_BATCH = 1000


class StreamDataModule(LightningDataModule):
    """The experiences of an Avalanche benchmark, one after the other, for a single ``Trainer.fit``.

    Which experience is being learned, and how many epochs of it are done, is explicit state that travels in the
    checkpoint; the loaders are rebuilt from it at every epoch.

    Args:
        benchmark: An Avalanche benchmark with streams ``train`` and ``test`` and, for tuning, ``valid``; or what
            returns one: of ``bayesdual.scenarios``, ``avalanche.benchmarks.classic``, or a callable of your own.
        epochs: Epochs of training on each experience.
        batch_size: New examples in a training batch (on each device).
        evaluate_on: Stream that ``fit`` evaluates on after each experience: ``test``, or ``valid`` for tuning.
        workers: Processes that read data which is not held as tensors.

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
        self.experience = 0  # the one being learned
        self.epoch = 0  # of that experience, the one under way
        self._shuffle_seed = int(torch.randint(2**31, ()))
        self._benchmark: Any = None
        self._train: tuple[int, TensorData | DatasetData] | None = None
        self._evaluation: dict[str, list[TensorData | DatasetData]] = {}

    @property
    def benchmark(self) -> Any:
        """The Avalanche benchmark, made when first asked for."""
        if self._benchmark is None:
            made = self._given if hasattr(self._given, "train_stream") or not callable(self._given) else self._given()
            if not hasattr(made, "train_stream"):
                raise ValueError(
                    f"data.benchmark gives {made!r:.80}, which is no Avalanche benchmark: name a callable that returns "
                    "one, with streams train and test."
                )
            self._benchmark = made
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
        train = self.stream("train")
        return {"epochs": self.epochs, "classes": [classes_of(e) for e in train], "sizes": [*map(_size, train)]}

    def check_labels(self, n_logits: int) -> None:
        """Sees that there is something to learn from and to evaluate on in every experience, with labels that can be.

        Args:
            n_logits: How many classes the network tells apart.

        Raises:
            ValueError: An experience is empty, is evaluated nowhere, or has a label that is not in 0..n_logits - 1.
        """
        about, evaluated = self.describe(), self.evaluation_data(self.evaluate_on)
        for number, (size, classes) in enumerate(zip(about["sizes"], about["classes"], strict=True), start=1):
            name = f"experience {number} of data.benchmark"
            if size == 0:
                raise ValueError(f"{name} has no training examples: leave it out.")
            if min(classes) < 0:
                raise ValueError(f"{name} has the label {min(classes)}: labels are 0, 1, and so on.")
        if len(evaluated) != self.n_experiences:
            raise ValueError(
                f"data.benchmark has {self.n_experiences} experiences to learn and {len(evaluated)} in the stream "
                f"{self.evaluate_on!r}: give as many, to evaluate each."
            )
        for number, data in enumerate(evaluated, start=1):
            name = f"experience {number} of the stream {self.evaluate_on!r} of data.benchmark"
            if len(data) == 0:
                raise ValueError(f"{name} has no examples: give it some to evaluate on.")
            low, high = int(data.y.min()), int(data.y.max())
            if low < 0 or high >= n_logits:
                raise ValueError(
                    f"{name} has the label {low if low < 0 else high}, but model.network tells the classes 0 to "
                    f"{n_logits - 1} apart."
                )

    def train_data(self) -> TensorData | DatasetData:
        """The training data of the current experience (of the last one, once all are learned)."""
        current = min(self.experience, self.n_experiences - 1)
        if self._train is None or self._train[0] != current:
            data = experience_data(self.stream("train")[current])
            if len(data) == 0:
                raise ValueError(f"experience {current + 1} of data.benchmark has no training examples: leave it out.")
            self._train = (current, data)
        return self._train[1]

    def evaluation_data(self, stream: str) -> list[TensorData | DatasetData]:
        """The data of all experiences of an evaluation stream, read once."""
        if stream not in self._evaluation:
            self._evaluation[stream] = [experience_data(e) for e in self.stream(stream)]
        return self._evaluation[stream]

    # -- what Lightning calls

    def train_dataloader(self) -> TensorLoader | DataLoader:
        data = self.train_data()
        rank, ranks = self._rank()
        seed = (self._shuffle_seed + self.experience * self.epochs + self.epoch) % 2**63
        if isinstance(data, TensorData):
            return TensorLoader(data, self.batch_size, seed, rank, ranks)
        dataset = data.dataset.train() if hasattr(data.dataset, "train") else data.dataset
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(Labelled(dataset, data), self.batch_size, True, num_workers=self.workers, generator=generator)

    def val_dataloader(self) -> list[TensorLoader | DataLoader]:
        validating = self.trainer is not None and self.trainer.state.fn == TrainerFn.VALIDATING
        return self._evaluation_loaders("valid" if validating else self.evaluate_on)

    def test_dataloader(self) -> list[TensorLoader | DataLoader]:
        return self._evaluation_loaders("test")

    predict_dataloader = test_dataloader

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

    def _evaluation_loaders(self, stream: str) -> list[TensorLoader | DataLoader]:
        rank, ranks = self._rank()
        loaders: list[TensorLoader | DataLoader] = []
        for data in self.evaluation_data(stream):
            if isinstance(data, TensorData):
                loaders.append(TensorLoader(data, EVALUATION_BATCH, None, rank, ranks))
            else:
                loaders.append(DataLoader(Labelled(data.plain, data), self.batch_size, num_workers=self.workers))
        return loaders

    def _rank(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _size(experience: Any) -> int:
    return len(experience.dataset) if hasattr(experience, "dataset") else len(experience_data(experience))
