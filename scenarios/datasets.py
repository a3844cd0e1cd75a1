"""Raw image datasets, held as uint8 tensors with their official split.

Files are looked for in the configured root, then where the system's package puts them, then downloaded by
torchvision into the root; how they are found and read is in ``bayesdual.scenarios.files``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bayesdual.extras import require
from bayesdual.scenarios.files import damaged, download, find, read_idx, read_plain_pickle

DIGITS_TEST_FRACTION = 0.2
DIGITS_SPLIT_SEED = 20  # fixed, so that every run on the digits has the same test set
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Both datasets come in files of the same names; the first training labels tell which one a folder holds.
_FIRST_LABELS = {"MNIST": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), "Fashion-MNIST": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5)}


@dataclass(frozen=True)
class RawDataset:
    """Labelled uint8 images, or texts as token ids, with the official split into training and test data.

    Attributes:
        name: What people call the dataset.
        train_x: Training images, shape (N, C, H, W), uint8, or token ids, shape (N, L), of a wider type of integers.
        train_y: Training labels, shape (N,), int64, in 0..n_classes-1.
        test_x: Test images or token ids.
        test_y: Test labels, shape (M,), int64.
        mean: Mean of each channel of the training images, on the scale 0..1; empty for token ids.
        std: Standard deviation of each channel of the training images, on the scale 0..1; empty for token ids.
        classes: The name of each class.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, x, y in (("training", self.train_x, self.train_y), ("test", self.test_x, self.test_y)):
            if len(x) != len(y):
                raise ValueError(f"The {part} data of {self.name} has {len(x)} images but {len(y)} labels.")
            if len(y) == 0:
                raise ValueError(f"The {part} data of {self.name} is empty.")
            if not 0 <= int(y.min()) <= int(y.max()) < self.n_classes:
                raise ValueError(f"A label in the {part} data of {self.name} is outside 0..{self.n_classes - 1}.")

    @property
    def n_classes(self) -> int:
        return len(self.classes)


def stratified_split(y: Tensor, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits positions at random into two parts, class by class.

    Args:
        y: Labels, shape (N,).
        fraction: Share of each class that goes to the second part, in [0, 1), rounded to whole examples.
        seed: Seed of the draw.

    Returns:
        The positions of the first and of the second part, each ascending, int64.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = y.numpy()
    second = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = torch.randperm(len(rows), generator=generator).numpy()
        second[rows[order[: round(fraction * len(rows))]]] = True
    return np.flatnonzero(~second), np.flatnonzero(second)


# ---- The datasets ------------------------------------------------------------------------------------------


def digits() -> RawDataset:
    """The 1797 handwritten digits that scikit-learn ships: 8x8 grey images, 10 classes.

    Grey levels 0..16 become 0..255. A fifth of each class is the test set, the same in every run.
    """
    require("bayesdual.scenarios.digits", "avalanche")
    from sklearn.datasets import load_digits  # seconds to import, so only when wanted

    bunch = cast(Any, load_digits())
    levels = torch.from_numpy(bunch.images).to(torch.float32)
    x = (levels * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    y = torch.from_numpy(bunch.target).to(torch.int64)
    train, test = stratified_split(y, DIGITS_TEST_FRACTION, DIGITS_SPLIT_SEED)
    return RawDataset(
        "Digits",
        x[train],
        y[train],
        x[test],
        y[test],
        mean=(0.3056,),
        std=(0.3759,),
        classes=tuple("0123456789"),
    )


def mnist(root: str | Path = "data") -> RawDataset:
    """MNIST (LeCun et al., 1998): 70000 handwritten digits, 28x28, grey.

    Args:
        root: The folder that holds the idx files, gzipped or not, itself or in ``MNIST/raw``.

    Raises:
        FileNotFoundError: The files are in none of the places looked at and cannot be downloaded.
        ValueError: A file is truncated or damaged.
    """
    root = Path(root).expanduser()
    return _idx_dataset(
        "MNIST",
        [root / "MNIST" / "raw", root],
        advice="copy the four files of https://ossci-datasets.s3.amazonaws.com/mnist/ into the first",
        mean=(0.1307,),
        std=(0.3081,),
        classes=tuple("0123456789"),
    )


def fashion_mnist(root: str | Path = "data") -> RawDataset:
    """Fashion-MNIST (Xiao et al., 2017): 70000 pictures of clothes, 28x28, grey.

    Args:
        root: The folder that holds the idx files, gzipped or not, itself or in ``FashionMNIST/raw``; without
            them, the files of Debian's package dataset-fashion-mnist are taken.

    Raises:
        FileNotFoundError: The files are in none of the places looked at and cannot be downloaded.
        ValueError: A file is truncated or damaged.
    """
    root = Path(root).expanduser()
    return _idx_dataset(
        "Fashion-MNIST",
        [root / "FashionMNIST" / "raw", root, DEBIAN_FASHION_MNIST],
        advice="install Debian's package dataset-fashion-mnist, or copy the four files of "
        "https://github.com/zalandoresearch/fashion-mnist into the first",
        mean=(0.2860,),
        std=(0.3530,),
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    )


def cifar10(root: str | Path = "data") -> RawDataset:
    """CIFAR-10 (Krizhevsky, 2009): 60000 colour photographs, 32x32, 10 classes.

    Args:
        root: The folder that holds ``cifar-10-batches-py``, the unpacked Python version.

    Raises:
        FileNotFoundError: The files are in none of the places looked at and cannot be downloaded.
        ValueError: A file is truncated, damaged, or holds anything but arrays, numbers and text.
    """
    return _cifar_dataset(
        "CIFAR-10",
        Path(root).expanduser(),
        folder="cifar-10-batches-py",
        train=[f"data_batch_{i}" for i in range(1, 6)],
        test=["test_batch"],
        label_key="labels",
        names=("batches.meta", "label_names"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    )


def cifar100(root: str | Path = "data") -> RawDataset:
    """CIFAR-100 (Krizhevsky, 2009): 60000 colour photographs, 32x32, 100 (fine) classes.

    Args:
        root: The folder that holds ``cifar-100-python``, the unpacked Python version.

    Raises:
        FileNotFoundError: The files are in none of the places looked at and cannot be downloaded.
        ValueError: A file is truncated, damaged, or holds anything but arrays, numbers and text.
    """
    return _cifar_dataset(
        "CIFAR-100",
        Path(root).expanduser(),
        folder="cifar-100-python",
        train=["train"],
        test=["test"],
        label_key="fine_labels",
        names=("meta", "fine_label_names"),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    )


# ---- From files to a dataset -------------------------------------------------------------------------------


def _idx_dataset(
    name: str,
    folders: Sequence[Path],
    *,
    advice: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    classes: tuple[str, ...],
) -> RawDataset:
    """A dataset in four files in the format of MNIST; its torchvision name is its own without hyphens."""
    dataset_class = name.replace("-", "")
    root = folders[0].parent.parent
    files = find(
        name,
        _IDX_FILES,
        folders,
        lambda: download(dataset_class, root, Path(dataset_class, "raw"), _IDX_FILES),
        advice,
    )
    train_x, train_y, test_x, test_y = (read_idx(files[n], n_dims=3 if "images" in n else 1) for n in _IDX_FILES)
    for other, labels in _FIRST_LABELS.items():
        if other != name and tuple(train_y[: len(labels)].tolist()) == labels:
            raise ValueError(f"{files[_IDX_FILES[1]]} holds the labels of {other}, not of {name}.")
    return RawDataset(
        name, train_x.unsqueeze(1), train_y.long(), test_x.unsqueeze(1), test_y.long(), mean, std, classes
    )


def _cifar_dataset(
    name: str,
    root: Path,
    *,
    folder: str,
    train: Sequence[str],
    test: Sequence[str],
    label_key: str,
    names: tuple[str, str],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> RawDataset:
    """A dataset in pickles of CIFAR's; ``names`` are the file and the key of the list of classes."""
    wanted = [*train, *test, names[0]]
    files = find(
        name,
        wanted,
        [root / folder],
        lambda: download(name.replace("-", ""), root, Path(folder), wanted),
        f"unpack https://www.cs.toronto.edu/~kriz/{name.lower()}-python.tar.gz in {root}",
    )

    def read(batches: Sequence[str]) -> tuple[Tensor, Tensor]:
        parts = [_read_cifar_batch(files[batch], label_key) for batch in batches]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    classes = read_plain_pickle(files[names[0]]).get(names[1])
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise damaged(files[names[0]], f"it has no list of names {names[1]!r}")
    return RawDataset(name, *read(train), *read(test), mean, std, tuple(classes))


def _read_cifar_batch(path: Path, label_key: str) -> tuple[Tensor, Tensor]:
    """Returns images (N, 3, 32, 32), uint8, and labels (N,), int64, of one file of CIFAR."""
    batch = read_plain_pickle(path)
    images, labels = batch.get("data"), batch.get(label_key)
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 2
        or images.shape[1] != 3 * 32 * 32
        or not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(isinstance(label, int) for label in labels)
    ):
        raise damaged(path, f"it has not as many {label_key!r} as rows of 3072 bytes in 'data'")
    return torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.tensor(labels, dtype=torch.int64)
