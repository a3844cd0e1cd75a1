"""A benchmark from a folder of pictures: ``CLASS/*.png``, or ``DOMAIN/CLASS/*.png``.

Pictures are held as uint8, or, if they are ``lazy``, read one at a time when they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from bayesdual.scenarios.arrays import ENOUGH, held, learned, levels, streams_of
from bayesdual.scenarios.benchmark import LabelledBenchmark, LabelledExperience
from bayesdual.scenarios.cuts import Cut, Examples, cut
from bayesdual.scenarios.labels import numbered
from bayesdual.stream import normalise

Mode = Literal["RGB", "L"]


@dataclass(frozen=True)
class Pictures:
    """How files become images.

    Attributes:
        files: The files.
        mode: ``RGB``, or ``L`` for grey.
        size: Height and width that they are brought to; None: those that all of them have.
    """

    files: Sequence[Path]
    mode: Mode
    size: tuple[int, int] | None

    def __getitem__(self, i: int) -> Tensor:
        """One of them, shape (C, H, W), uint8; what is transparent is white.

        Raises:
            ValueError: The file cannot be read, or is of another size than the first.
        """
        image = self._read(i)
        if self.size is None and i != 0 and image.size != self._first_size():
            one, other = (f"{height} x {width}" for width, height in (self._first_size(), image.size))
            raise ValueError(
                f"{self.files[0]} is {one} and {self.files[i]} {other} pixels: give size, which all are brought to."
            )
        array = np.array(image)
        return torch.from_numpy(array[None] if self.mode == "L" else np.ascontiguousarray(array.transpose(2, 0, 1)))

    def stacked(self, rows: Sequence[int]) -> Tensor:
        """Some of them, shape (N, C, H, W)."""
        return torch.stack([self[i] for i in rows])

    def _first_size(self) -> tuple[int, int]:
        """Width and height of the first, of which only the beginning is read."""
        with Image.open(self.files[0]) as first:
            return first.size

    def _read(self, i: int) -> Image.Image:
        try:
            with Image.open(self.files[i]) as file:
                if file.mode[0] in "IF":  # Pillow would cut what is above 255
                    raise ValueError("it has more than 8 bits a channel")
                image: Image.Image = file
                if "A" in file.getbands() or "transparency" in file.info:
                    layer = file.convert("RGBA")
                    image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
                image = image.convert(self.mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.files[i]} cannot be read as a picture ({error}): replace it.") from None
        if self.size is None:
            return image
        height, width = self.size
        return image.resize((width, height), Image.Resampling.BILINEAR)


@dataclass(frozen=True, eq=False)
class LazyRows(Dataset):
    """Some of the pictures, read when they are asked for."""

    pictures: Pictures
    y: np.ndarray
    rows: np.ndarray
    task_label: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def labels(self) -> list[int]:
        return self.y[self.rows].tolist()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Returns the normalised image, shape (C, H, W), float32, and its label."""
        row = int(self.rows[i])
        image = self.pictures[row].unsqueeze(0)
        return normalise(image, self.mean, self.std).squeeze(0), int(self.y[row])


def from_folder(
    path: str | Path,
    *,
    by: Literal["classes", "domain"] = "classes",
    n_experiences: int | None = None,
    size: int | list[int] | None = None,
    mode: Mode = "RGB",
    lazy: bool = False,
    test: float | str | Path = 0.2,
    validation: float = 0.0,
    groups: str | None = None,
    class_order: list | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    task_labels: bool = False,
) -> LabelledBenchmark:
    """Pictures of yours in folders, one for each class, split by class or by domain.

    Args:
        path: The folder: of ``CLASS/*.png``, or, by domain, of ``DOMAIN/CLASS/*.png``.
        by: What tells experiences apart: ``classes``, or ``domain``, an experience each, numbers ascending and names by
            the alphabet.
        n_experiences: Number of experiences; None: 5, or as many as there are domains. The first ones get one class
            more where it does not divide.
        size: Height and width that pictures are brought to, a number or two; None: they must be of one size.
        mode: ``RGB``, or ``L`` for grey. What is transparent is white.
        lazy: Read pictures when they are asked for, instead of holding them all.
        test: Share for testing, drawn class by class; or a folder like the first.
        validation: Share of the rest that makes the stream ``valid``; 0: no such stream.
        groups: A regular expression that finds in the name of a file what it comes from, as its first group: files of
            one source are on one side.
        class_order: The classes in the order in which they come; None: numbers ascending, names by the alphabet.
        shuffle_classes: Draw that order from the seed instead.
        seed: Seed of all that is drawn.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.

    Returns:
        A benchmark; unless it is ``lazy``, a one whose experiences have ``tensors()``.

    Raises:
        ValueError: What cannot be learned from, in a sentence that names the file.
    """
    if by == "time":
        raise ValueError("a folder says nothing of time: give by: classes or domain.")
    if mode not in ("RGB", "L"):
        raise ValueError(f"mode is {mode!r}: give RGB, or L for grey.")
    found, for_test = list(_pictures_in(Path(path), by == "domain")), None
    if not isinstance(test, float | int):
        to_test = list(_pictures_in(Path(test), by == "domain"))
        for_test = np.arange(len(found) + len(to_test)) >= len(found)
        found += to_test
    files = [file for file, _, _ in found]
    examples = Examples(
        str(path),
        lambda i: str(files[i]),
        *numbered([name for _, name, _ in found], lambda i: str(files[i])),
        domain=[domain for _, _, domain in found] if by == "domain" else None,
        groups=None if groups is None else [_source(file, groups) for file in files],
        for_test=for_test,
    )
    share = float(test) if isinstance(test, float | int) else 0.0
    how = Cut(by, n_experiences, None, share, validation, class_order, shuffle_classes, seed)
    parts = cut(examples, how)
    pictures = Pictures(files, mode, _height_and_width(size))
    if not lazy:
        x = pictures.stacked(range(len(files)))
        mean, std = levels(x, *learned(parts))
        return held(x, examples, parts, mean=mean, std=std, task_labels=task_labels)
    first = np.random.default_rng(seed).permutation(parts["train"][0])[:ENOUGH]
    some = torch.arange(len(first))
    mean, std = levels(pictures.stacked(first.tolist()), some, some)
    timeline = [np.unique(examples.y[rows]).tolist() for rows in parts["train"]]

    def experience(rows: np.ndarray, i: int) -> LabelledExperience:
        task = i if task_labels else 0
        return LabelledExperience(LazyRows(pictures, examples.y, rows, task, mean, std), i, timeline)

    return LabelledBenchmark(streams_of(parts, experience), timeline, examples.class_names)


def _pictures_in(folder: Path, by_domain: bool) -> Iterator[tuple[Path, str, str]]:
    """File, class and domain of each picture, in the order of their names."""
    shape = "DOMAIN/CLASS/*.png" if by_domain else "CLASS/*.png"
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; give one of {shape}.")
    domains = _folders(folder) if by_domain else [folder]
    for domain in domains:
        classes = _folders(domain)
        if not classes:
            raise ValueError(f"{domain} has no folder of a class: give a folder of {shape}.")
        for of_class in classes:
            files = [p for p in sorted(of_class.iterdir()) if p.suffix.lower() in IMG_EXTENSIONS and p.name[0] != "."]
            if not files:
                deeper = "; it has folders, as of domains and classes: give by: domain" if _folders(of_class) else ""
                raise ValueError(f"{of_class} has no picture ({', '.join(IMG_EXTENSIONS)}){deeper or ': remove it'}.")
            yield from ((file, of_class.name, domain.name) for file in files)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _source(file: Path, pattern: str) -> str:
    try:
        found = re.search(pattern, file.name)
        return found[1]  # type: ignore[index]
    except re.error as error:
        raise ValueError(f"groups is {pattern!r}, no regular expression ({error}): mend it.") from None
    except (TypeError, IndexError):
        raise ValueError(
            f"groups is {pattern!r}, which finds no group in the name {file.name!r}: give one that has a group and "
            "fits all names."
        ) from None


def _height_and_width(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or not all(isinstance(n, int) and n > 0 for n in both):
        raise ValueError(f"size is {size}: give height and width in pixels, or one number for both.")
    return both[0], both[1]
