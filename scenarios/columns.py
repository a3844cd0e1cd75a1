"""Tables as columns by name, from a CSV or Parquet file or from a data frame, and the cells of these as numbers.

Nothing is guessed that could go wrong in silence: a column is one of numbers or one of categories, and a cell that does
not belong is named by its file, line and column.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bayesdual.scenarios.labels import Where, as_number, in_order, is_missing

MOST_CATEGORIES = 1000


@dataclass(frozen=True)
class Table:
    """Columns by name, each with N cells.

    Attributes:
        name: What it is called.
        columns: Text as it stands in a file, or values of any kind.
        where: Where a row stands.
    """

    name: str
    columns: Mapping[str, Sequence[Any]]
    where: Where

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, setting: str) -> Sequence[Any]:
        """Raises: ValueError: There is no such column."""
        if name not in self.columns:
            raise ValueError(
                f"{setting} names the column {name!r}, which {self.name} has not; it has {', '.join(self.columns)}."
            )
        return self.columns[name]


def read_table(given: Any, delimiter: str = ",") -> Table:
    """Reads a table.

    Args:
        given: The path of a CSV file with names in its first line, or of a Parquet file (``.parquet``, read by
            pyarrow); or columns by name: a dict, or a data frame.
        delimiter: What separates the cells of a CSV file.

    Raises:
        ValueError: It cannot be read, has no rows, or rows of different lengths.
    """
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file; give a CSV or Parquet file.")
        table = _read_parquet(path) if path.suffix in (".parquet", ".pq") else _read_csv(path, delimiter)
    else:
        columns = {str(name): _values(given[name]) for name in (given if isinstance(given, Mapping) else given.columns)}
        table = Table("the table", columns, lambda i: f"row {i} (counted from 0) of the table")
    if not table.columns or len(table) == 0:
        raise ValueError(f"{table.name} has no rows: give one for each example.")
    if len({len(column) for column in table.columns.values()}) > 1:
        raise ValueError(f"the columns of {table.name} are of different lengths: give one cell for each example.")
    return table


def _read_csv(path: Path, delimiter: str) -> Table:
    rows, lines = [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if row:
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
                    if len(row) != len(header):
                        raise ValueError(
                            f"line {reader.line_num} of {path} has {len(row)} cells and its first line names "
                            f"{len(header)} columns: mend it, or give the right delimiter."
                        )
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8 ({error}): save it as one.") from None
    if twice := [name for name in header if header.count(name) > 1]:
        raise ValueError(f"{path} has two columns that are called {twice[0]!r}: call one otherwise.")
    if len(header) == 1 and (other := next((d for d in ";\t|" if d in header[0]), None)):
        raise ValueError(f"{path} has one column, {header[0]!r:.60}: give delimiter {other!r}.")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
    return Table(str(path), columns, lambda i: f"line {lines[i]} of {path}")


def _read_parquet(path: Path) -> Table:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(
            f"{path} is read by pyarrow, which is not installed: pip install pyarrow, or save it as CSV."
        ) from None
    try:
        read = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file, or is damaged ({str(error).splitlines()[0]}).") from None
    columns = {name: read[name].to_pylist() for name in read.column_names}
    return Table(str(path), columns, lambda i: f"row {i} (counted from 0) of {path}")


def joined(one: Table, other: Table) -> Table:
    """The rows of both, of the columns of the first.

    Raises:
        ValueError: The second lacks one.
    """
    columns = {}
    for name, cells in one.columns.items():
        if name not in other.columns:
            raise ValueError(f"{other.name} has no column {name!r}, which {one.name} has: give it the same columns.")
        columns[name] = [*cells, *other.columns[name]]
    n = len(one)
    return Table(one.name, columns, lambda i: one.where(i) if i < n else other.where(i - n))


def _values(column: Any) -> Sequence[Any]:
    """A column of a data frame as Python's own values, dates as text."""
    array = np.asarray(column)
    return [str(value) for value in array] if array.dtype.kind == "M" else array.tolist()


def numbers(table: Table, name: str) -> np.ndarray:
    """A column as numbers, shape (N,), float64.

    Raises:
        ValueError: A cell is empty, or is none.
    """
    cells = table.columns[name]
    try:
        values = np.asarray(cells).astype(np.float64)
        if np.isfinite(values).all():
            return values
    except (TypeError, ValueError):
        pass
    for i, cell in enumerate(cells):
        if is_missing(cell):
            raise _missing(table, i, name)
        number = as_number(cell)
        if number is None or not np.isfinite(number):
            raise ValueError(
                f"{table.where(i)} has {str(cell)!r:.40} in column {name!r}, which is otherwise one of numbers: mend "
                "it, leave the column out, or name it in categories."
            )
    return np.array([as_number(cell) for cell in cells], dtype=np.float64)


def categories_of(table: Table, name: str) -> list[str]:
    """The different values of a column, as text: numbers ascending, names by the alphabet.

    Raises:
        ValueError: A cell is empty.
    """
    cells = table.columns[name]
    different = set(cells)
    if any(map(is_missing, different)):
        raise _missing(table, next(i for i, cell in enumerate(cells) if is_missing(cell)), name)
    return in_order(sorted(map(str, different)))


def refuse_names(table: Table, name: str, categories: Sequence[str]) -> None:
    """Refuses text that is rather what the rows are called than what they are like.

    Raises:
        ValueError: It is.
    """
    n = len(table)
    if len(categories) > MOST_CATEGORIES or (len(categories) == n and n > 2):
        raise ValueError(
            f"column {name!r} of {table.name} has {len(categories)} different texts in {n} rows, like a name: leave it "
            "out of features, or name it in categories."
        )


def holds_text(table: Table, name: str) -> bool:
    """Whether no cell of a column is a number, and some are none."""
    different = [cell for cell in dict.fromkeys(table.columns[name]) if not is_missing(cell)]
    return bool(different) and all(as_number(cell) is None for cell in different)


def _missing(table: Table, i: int, name: str) -> ValueError:
    return ValueError(
        f"{table.where(i)} has nothing in column {name!r}: fill it in, or leave the row or the column out."
    )
