"""A benchmark from a table of one's own: a CSV or Parquet file, or a data frame.

A row becomes D numbers: its columns of numbers, standardised, and then its columns of categories, one-hot: 1 for the
value that it has, 0 for the others. A network has as many inputs throughout, so that the categories are those of the
whole table, as its classes are; of their labels nothing is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdual.scenarios.arrays import held, learned
from bayesdual.scenarios.benchmark import TensorBenchmark
from bayesdual.scenarios.columns import Table, categories_of, holds_text, joined, numbers, read_table, refuse_names
from bayesdual.scenarios.cuts import By, Cut, Every, Examples, cut
from bayesdual.scenarios.labels import TargetKind, of_kind
from bayesdual.scenarios.scaling import Scale, scale_of


@dataclass(frozen=True, eq=False)
class Encoding:
    """From rows of a table to inputs of a network.

    Attributes:
        numeric: The columns of numbers.
        categories: The columns of categories, each with its values.
        scale: Of the columns of numbers; None: they stay as they are.
        delimiter: What separates the cells of a CSV file.
    """

    numeric: tuple[str, ...]
    categories: dict[str, list[str]]
    scale: Scale | None
    delimiter: str = ","

    @property
    def features(self) -> list[str]:
        """The names of the inputs: of a category as ``column=value``."""
        return [*self.numeric, *(f"{name}={value}" for name, values in self.categories.items() for value in values)]

    def __call__(self, table: Any) -> Tensor:
        """Inputs, shape (N, D), float32, of what ``from_table`` takes as its path.

        Raises:
            ValueError: A column is not there, or a cell is not of its kind.
        """
        read = table if isinstance(table, Table) else read_table(table, self.delimiter)
        for name in (*self.numeric, *self.categories):
            read.column(name, "the encoding")
        parts = [_one_hot(read, name, values) for name, values in self.categories.items()]
        if self.numeric:
            plain = _matrix(read, self.numeric)
            parts.insert(0, plain.float() if self.scale is None else self.scale(plain))
        return torch.cat(parts, dim=1)


def from_table(
    path: Any,
    target: str,
    *,
    features: list[str] | None = None,
    categories: list[str] | None = None,
    by: By = "classes",
    n_experiences: int | None = None,
    domain: str | None = None,
    time: str | None = None,
    every: Every | None = None,
    test: float | str | Path = 0.2,
    validation: float = 0.0,
    groups: str | None = None,
    class_order: list | None = None,
    shuffle_classes: bool = False,
    standardise: bool = True,
    delimiter: str = ",",
    seed: int = 0,
    task_labels: bool = False,
    targets: TargetKind = "classes",
) -> TensorBenchmark:
    """A table of yours (CSV, Parquet, data frame), split by class, by domain or by time.

    Columns of text become one-hot, with all values that the table has; columns of numbers are standardised by the first
    experience's training data. A cell that is empty, or is text among numbers, is refused.

    Args:
        path: The file, with the names of the columns in its first line; or columns by name, a dict or a data frame.
        target: The column of the classes: whole numbers or names; or of numbers, see ``targets``.
        features: The columns to learn from; None: all but target, domain, time and groups.
        categories: Columns of numbers that are codes, to be one-hot as well; also those of very many texts.
        by: What tells experiences apart: ``classes``; ``domain``, an experience each, numbers ascending and names as
            they first come; or ``time``.
        n_experiences: Number of experiences; None: 5, or as many as there are domains or periods. The first ones get
            one class (or row) more where it does not divide.
        domain: The column of domains.
        time: The column of times: numbers or dates; None: the rows are in order.
        every: ``year``, ``month`` or ``day``: an experience for each, by dates; None: parts of equal size.
        test: Share for testing: drawn class by class, by time the latest of each experience; or a file with rows for
            testing.
        validation: Share of the rest that makes the stream ``valid``, in the same way; 0: no such stream.
        groups: The column of what each row comes from (a customer, a source): rows of one are on one side.
        class_order: The classes in the order in which they come; None: numbers ascending, names by the alphabet.
        shuffle_classes: Draw that order from the seed instead.
        standardise: Give each column of numbers mean 0 and standard deviation 1 in the first experience's training
            data.
        delimiter: What separates the cells of a CSV file.
        seed: Seed of all that is drawn.
        task_labels: Whether experience i carries task label i; otherwise all carry 0.
        targets: What the target is: ``classes``, or ``numbers``, which a likelihood of numbers learns, and which are
            cut by domain or by time.

    Returns:
        A benchmark; its ``encoding`` makes inputs of further rows.

    Raises:
        ValueError: What cannot be learned from, in a sentence with file, line and column.
    """
    table, for_test = read_table(path, delimiter), None
    if not isinstance(test, float | int):
        to_test = read_table(test, delimiter)
        for_test = np.arange(len(table) + len(to_test)) >= len(table)
        table = joined(table, to_test)

    def beside(setting: str, column: str | None) -> Sequence[Any] | None:
        return None if column is None else table.column(column, setting)

    examples = Examples(
        table.name,
        table.where,
        *of_kind(targets, table.column(target, "target"), lambda i: f"{table.where(i)}, column {target!r},"),
        domain=beside("domain", domain),
        time=beside("time", time),
        groups=beside("groups", groups),
        for_test=for_test,
    )
    share = float(test) if isinstance(test, float | int) else 0.0
    how = Cut(by, n_experiences, every, share, validation, class_order, shuffle_classes, seed)
    parts = cut(examples, how)
    if features is None:
        features = [name for name in table.columns if name not in (target, domain, time, groups)]
    numeric, one_hot = _kinds(table, features, categories or [], target)
    scale = None
    if standardise and numeric:
        scale = scale_of(_matrix(table, numeric), *learned(parts), [f"column {name!r}" for name in numeric])
    encoding = Encoding(numeric, one_hot, scale, delimiter)
    benchmark = held(encoding(table), examples, parts, task_labels=task_labels)
    benchmark.encoding = encoding
    return benchmark


def _kinds(
    table: Table, features: Sequence[str], categories: Sequence[str], target: str
) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """Which columns are numbers, and which are categories with which values; a column of one value is left out."""
    if not features:
        raise ValueError(f"{table.name} has no column to learn from: name some in features.")
    if target in features:
        raise ValueError(f"{target!r} is the target: leave it out of features.")
    if stray := [name for name in categories if name not in features]:
        raise ValueError(f"categories names {stray[0]!r}, which is not among the features: leave it out.")
    numeric, one_hot = [], dict[str, list[str]]()
    for name in features:
        cells = table.column(name, "features")
        if len(set(cells)) == 1 and len(cells) > 1:
            categories_of(table, name)  # nothing at all is refused
            warnings.warn(f"column {name!r} of {table.name} is {cells[0]} throughout, and is left out.", stacklevel=3)
        elif name in categories:
            one_hot[name] = categories_of(table, name)
        elif holds_text(table, name):
            one_hot[name] = categories_of(table, name)
            refuse_names(table, name, one_hot[name])
        else:
            numeric.append(name)
    if not numeric and not one_hot:
        raise ValueError(f"{table.name} has no column that changes: there is nothing to learn from.")
    return tuple(numeric), one_hot


def _matrix(table: Table, names: Sequence[str]) -> Tensor:
    return torch.from_numpy(np.stack([numbers(table, name) for name in names], axis=1))


def _one_hot(table: Table, name: str, values: Sequence[str]) -> Tensor:
    place = {value: i for i, value in enumerate(values)}
    try:
        codes = [place[str(cell)] for cell in table.columns[name]]
    except KeyError:
        i = next(i for i, cell in enumerate(table.columns[name]) if str(cell) not in place)
        raise ValueError(
            f"{table.where(i)} has {str(table.columns[name][i])!r:.40} in column {name!r}, which no row had that the "
            "stream was made of: leave the row out, or make the stream of all."
        ) from None
    return torch.nn.functional.one_hot(torch.tensor(codes), len(values)).float()
