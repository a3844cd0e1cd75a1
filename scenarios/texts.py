"""Texts by their intent: CLINC150 and BANKING77, split by class, as token ids of a model's own tokenizer.

The files are looked for in the configured root; nothing is downloaded. Tokenizers come from a folder on disk, as
``bayesdual.lora`` reads them.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from bayesdual.scenarios.benchmark import ImageBenchmark
from bayesdual.scenarios.datasets import RawDataset
from bayesdual.scenarios.split import split_benchmark


class Text(NamedTuple):
    """A text and the name of its class."""

    text: str
    label: str


@dataclass(frozen=True)
class Texts:
    """Labelled texts, with the official split.

    Attributes:
        name: What people call the dataset.
        train: Training texts.
        test: Test texts.
        out_of_scope: Texts of no class, to be told from the others; there may be none.
    """

    name: str
    train: Sequence[Text]
    test: Sequence[Text]
    out_of_scope: Sequence[str] = ()


def clinc150(root: str | Path = "data") -> Texts:
    """CLINC150 (Larson et al., EMNLP 2019): 22,500 queries of 150 intents, and 1,000 test queries out of scope.

    Its validation texts (20 a class) are left out: benchmarks take theirs out of the training texts.

    Args:
        root: Where ``clinc150.json`` (or ``data_full.json``, as it is distributed) is.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is damaged, or something else.
    """
    path = _find("CLINC150", root, ("clinc150.json", "data_full.json"), "https://github.com/clinc/oos-eval")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        train, test, outside = ([Text(*row) for row in content[part]] for part in ("train", "test", "oos_test"))
        if not all(isinstance(value, str) for row in (*train, *test, *outside) for value in row):
            raise TypeError("a row is not a text and an intent")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged, or not CLINC150 ({error}): replace it.") from None
    return Texts("CLINC150", train, test, [row.text for row in outside])


def banking77(root: str | Path = "data") -> Texts:
    """BANKING77 (Casanueva et al., 2020): 13,083 questions to a bank, of 77 intents.

    Args:
        root: Where ``banking77_train.csv`` and ``banking77_test.csv`` (or ``banking77/train.csv`` and ``test.csv``)
            are, with columns ``text`` and ``category``.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: One is damaged, or something else.
    """
    address = "https://github.com/PolyAI-LDN/task-specific-datasets"
    parts = []
    for part in ("train", "test"):
        path = _find("BANKING77", root, (f"banking77_{part}.csv", f"banking77/{part}.csv"), address)
        with open(path, newline="", encoding="utf-8") as file:
            try:
                parts.append([Text(row["text"], row["category"]) for row in csv.DictReader(file, strict=True)])
            except (csv.Error, KeyError, UnicodeDecodeError) as error:
                raise ValueError(f"{path} is damaged, or not BANKING77 ({error}): replace it.") from None
    train, test = parts
    return Texts("BANKING77", train, test)


def tokenised(texts: Texts, folder: str, length: int) -> RawDataset:
    """Texts as token ids, shape (N, length); classes are numbered in the order of their names.

    Args:
        texts: The texts.
        folder: Where the tokenizer was saved.
        length: In tokens; shorter texts are padded, longer ones cut, and a warning says how many.

    Raises:
        ValueError: There is no such tokenizer, ``length`` is not one that it takes, or a class has no training text.
    """
    from bayesdual.lora import read_tokenizer, tokens  # seconds to import

    tokenizer, classes = read_tokenizer(folder), sorted({row.label for row in texts.train})
    numbers = {label: i for i, label in enumerate(classes)}
    if strays := sorted({row.label for row in texts.test} - set(classes)):
        raise ValueError(f"{texts.name} has test texts of the class {strays[0]!r}, and no training texts: replace it.")
    x, y, cut = [], [], 0
    for rows in (texts.train, texts.test):
        ids, too_long = tokens(tokenizer, [row.text for row in rows], length, texts.name)
        x.append(ids)
        y.append(torch.tensor([numbers[row.label] for row in rows]))
        cut += too_long
    if cut:
        total = len(texts.train) + len(texts.test)
        warnings.warn(
            f"{cut} of the {total} texts of {texts.name} are longer than {length} tokens, and were cut: give the "
            "benchmark a larger length to keep them whole.",
            stacklevel=2,
        )
    return RawDataset(texts.name, x[0], y[0], x[1], y[1], (), (), tuple(classes))


def SplitCLINC150(
    folder: str,
    n_experiences: int = 15,
    length: int = 24,
    class_order: list[int] | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> ImageBenchmark:
    """CLINC150 (150 intents of short queries), split by class, as token ids.

    Args:
        folder: Where the tokenizer was saved by ``save_pretrained``: the folder of the network's encoder.
        n_experiences: Number of experiences; it must divide 150.
        length: Tokens of a text; longer ones are cut.
        class_order: The classes in the order in which they come; None: 0, 1, 2, ... in the order of their names.
        shuffle_classes: Draw the order from the seed instead.
        seed: Seed of the order (if shuffled) and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is (see :func:`clinc150`).
    """
    return split_benchmark(
        tokenised(clinc150(root), folder, length),
        n_experiences,
        class_order=class_order,
        shuffle_classes=shuffle_classes,
        seed=seed,
        validation=validation,
        task_labels=task_labels,
    )


def SplitBANKING77(
    folder: str,
    n_experiences: int = 7,
    length: int = 48,
    class_order: list[int] | None = None,
    shuffle_classes: bool = False,
    seed: int = 0,
    validation: float = 0.0,
    task_labels: bool = False,
    root: str | Path = "data",
) -> ImageBenchmark:
    """BANKING77 (77 intents of questions to a bank), split by class, as token ids.

    Args:
        folder: Where the tokenizer was saved by ``save_pretrained``: the folder of the network's encoder.
        n_experiences: Number of experiences; it must divide 77.
        length: Tokens of a text; longer ones are cut.
        class_order: The classes in the order in which they come; None: 0, 1, 2, ... in the order of their names.
        shuffle_classes: Draw the order from the seed instead.
        seed: Seed of the order (if shuffled) and of the validation split.
        validation: Share of the training data, class by class, that makes the stream ``valid``.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        root: Where the data is (see :func:`banking77`).
    """
    return split_benchmark(
        tokenised(banking77(root), folder, length),
        n_experiences,
        class_order=class_order,
        shuffle_classes=shuffle_classes,
        seed=seed,
        validation=validation,
        task_labels=task_labels,
    )


def _find(dataset: str, root: str | Path, names: Sequence[str], address: str) -> Path:
    for name in names:
        if (path := Path(root) / name).is_file():
            return path
    raise FileNotFoundError(
        f"{dataset}: no {' or '.join(names)} in {root}: put it there (from {address}), or name the right root."
    )
