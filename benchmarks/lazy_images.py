"""A stream of more images than fit into memory: what is resident while it is learned.

Images of 3 x 64 x 64 are made when they are read, as those of a folder are by `from_folder(lazy=True)`: 200,000 of them
in float32 are 9.8 GB. They are learned in experiences of one class each by a small convolutional network, one epoch,
with the default method and a memory of 200.

    python benchmarks/lazy_images.py                       200,000 images in 10 experiences
    python benchmarks/lazy_images.py --images 20000        a look

Prints the greatest resident memory so far after each experience, in GiB, of this process and of the workers that read.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any, cast

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from lightning import Callback, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdual import BayesDual, Learner, StreamDataModule

GIB = 2**20  # of the kibibytes that Linux counts in


class Stripes(Dataset[Any]):
    """Images of one class: noise over stripes whose width is the class."""

    def __init__(self, label: int, images: int, first: int = 0) -> None:
        self.targets = [label] * images
        self.first = first

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        label = self.targets[i]
        noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(self.first + i))
        return noise + torch.sin(torch.arange(64.0) * (0.2 + 0.2 * label)), label


class Told(Callback):
    """Prints what is resident after each experience."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        own, workers = (
            resource.getrusage(who).ru_maxrss / GIB for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        matrix, seconds = pl_module.history.accuracy, time.perf_counter() - self.start
        seen = sum(matrix[-1][: len(matrix)]) / len(matrix)
        print(f"{len(matrix):>10}{seen:>10.3f}{own:>12.2f}{workers:>12.2f}{seconds:>10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--experiences", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    each = given.images // given.experiences
    of = cast(Any, as_classification_dataset)  # whose types ask for more than it does
    train = [of(Stripes(k, each, k * each)) for k in range(given.experiences)]
    test = [of(Stripes(k, 100, 10**9 + 100 * k)) for k in range(given.experiences)]
    seed_everything(0, verbose=False)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, given.experiences),
    )
    benchmark = cast(Any, benchmark_from_datasets(train=train, test=test))
    stream = StreamDataModule(benchmark, batch_size=200, workers=given.workers)
    print(f"{'experience':>10}{'seen':>10}{'resident':>12}{'of workers':>12}{'seconds':>10}")
    trainer = Trainer(
        max_epochs=-1,
        accelerator="cpu",
        callbacks=Told(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Learner(network, BayesDual(memory_size=200)), stream)


if __name__ == "__main__":
    main()
