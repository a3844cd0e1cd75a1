"""Does an experience cost as much at the end of a long stream as at its beginning? Seconds and memory, as streams grow.

    python benchmarks/scaling.py [--only WORD ...] [--minutes 15] [--results FILE] [--table] [--figure FILE]

Rows, each a run in a process of its own, one thread, batches of 64, one epoch an experience:

    experiences 5 .. 300   ten classes that shift in each experience, 600 new vectors of 64 numbers, an MLP, memory 500
    classes 10 .. 1000     a class in each experience, 200 vectors of each; memory 2,000; of 1,000, the old ones are
                           evaluated after every hundredth alone
    memory 1000 .. 100000  40 experiences of 5,000 vectors, ten classes; the memory is full after memory / 5,000
    evaluated every 10     100 experiences, the old ones evaluated after every tenth alone
    disk                   10 experiences behind a loader, together 20 GB (--gigabytes) of pictures of 128 x 128; the
                           file is sparse: what is read are zeros, through the page cache but from no disk, and a
                           pattern of the class is laid over them
    processes 1, 2         a CNN on pictures of 28 x 28, 4,096 in an experience, batches of 128 in all; wall time

Of each experience: processor seconds (what a busy machine hardly changes) and wall seconds of training, of evaluation,
and of the rest, which is filling the memory, measuring posterior and prior, and a checkpoint; and resident memory.
Rows are appended to the results file; a second call goes on with those that are not there by this code. ``--only``
takes the rows whose name has one of the words. ``flat`` compares the last fifth of a run with its second fifth, but for
evaluation, which grows with what there is to evaluate.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdual import BayesDual, Learner, StreamDataModule, sources
from bayesdual.files import append_line
from bayesdual.learner import StreamCheckpoint
from bayesdual.models import CNN, MLP
from bayesdual.stream import TensorData

FEATURES, SIDE = 64, 128
QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
PARTS = ("training", "rest", "evaluation")


@dataclass(frozen=True)
class Row:
    """A run.

    Attributes:
        name: What it is called.
        stream: Makes its benchmark.
        network: Makes its network.
        memory: Exemplars kept.
        batch: New examples in a batch.
        ranks: Processes.
        settings: Of the stream.
    """

    name: str
    stream: Callable[[], Any]
    network: Callable[[], nn.Module]
    memory: int
    batch: int = 64
    ranks: int = 1
    settings: tuple[tuple[str, Any], ...] = ()


# ---- Streams, made as they are read -------------------------------------------------------------------------


def around(centres: Tensor, y: Tensor, seed: int) -> Tensor:
    """Vectors around the centres of their classes."""
    return centres[y] + torch.randn(len(y), centres.shape[1], generator=torch.Generator().manual_seed(seed))


def centres_of(n: int, seed: int = 0) -> Tensor:
    return 1.5 * torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed))


def experience(classes: list[int], n: int, seed: int, centres: Callable[[], Tensor]) -> Any:
    """One of vectors, ``n`` of all classes together, made each time that it is asked for."""

    def tensors() -> TensorData:
        y = torch.tensor(classes).repeat_interleave(n // len(classes))
        return TensorData(around(centres(), y, seed), y, torch.zeros_like(y), torch.arange(len(y)))

    return SimpleNamespace(tensors=tensors, classes_in_this_experience=classes)


def of_domains(experiences: int, n: int, n_test: int = 50) -> Any:
    """Ten classes whose centres shift in each experience."""

    def one(place: int, size: int, seed: int) -> Any:
        return experience(list(range(10)), size, seed, lambda: centres_of(10) + 0.3 * centres_of(10, 1 + place))

    train = [one(i, n, 2 * i) for i in range(experiences)]
    return SimpleNamespace(train_stream=train, test_stream=[one(i, n_test, 2 * i + 1) for i in range(experiences)])


def of_classes(classes: int, n: int, n_test: int = 10) -> Any:
    """A class in each experience."""

    def one(c: int, size: int, seed: int) -> Any:
        return experience([c], size, seed, lambda: centres_of(classes))

    train = [one(c, n, 2 * c) for c in range(classes)]
    return SimpleNamespace(train_stream=train, test_stream=[one(c, n_test, 2 * c + 1) for c in range(classes)])


def of_images(experiences: int, n: int) -> Any:
    """Two classes of pictures of 28 x 28 in each experience."""

    def one(place: int, size: int, seed: int) -> Any:
        def tensors() -> TensorData:
            draw = torch.Generator().manual_seed(seed)
            y = torch.tensor([2 * place, 2 * place + 1]).repeat_interleave(size // 2)
            pattern = torch.randint(60, 190, (2 * experiences, 1, 7, 7), generator=torch.Generator().manual_seed(0))
            x = pattern[y].repeat_interleave(4, 2).repeat_interleave(4, 3)
            x = (x + 40 * torch.randn(x.shape, generator=draw)).clamp(0, 255).to(torch.uint8)
            return TensorData(x, y, torch.zeros_like(y), torch.arange(size), (0.5,), (0.25,))

        return SimpleNamespace(tensors=tensors, classes_in_this_experience=[2 * place, 2 * place + 1])

    train = [one(i, n, 2 * i) for i in range(experiences)]
    return SimpleNamespace(train_stream=train, test_stream=[one(i, 200, 2 * i + 1) for i in range(experiences)])


class OnDisk(Dataset):
    """Pictures of 3 x 128 x 128 bytes in a file, of which one at a time is in memory.

    Args:
        path: The file.
        first: The first of them.
        classes: The classes of as many pictures each.
        each: How many.
    """

    def __init__(self, path: Path, first: int, classes: list[int], each: int) -> None:
        self.path, self.first = path, first
        self.targets = [c for c in classes for _ in range(each)]
        self._file: int | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        raw = os.pread(self._file, SIZE, (self.first + i) * SIZE)
        x = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(3, SIDE, SIDE).float() / 255
        draw = torch.Generator().manual_seed(self.targets[i])
        pattern = torch.rand(3, 8, 8, generator=draw) + 0.3 * torch.randn(3, 8, 8)
        return x + pattern.repeat_interleave(SIDE // 8, 1).repeat_interleave(SIDE // 8, 2), self.targets[i]


SIZE = 3 * SIDE * SIDE


def of_file(path: Path, gigabytes: float, experiences: int = 10) -> Any:
    """Two classes in each experience, in a sparse file."""
    each = int(gigabytes * 1e9 / SIZE / experiences / 2)
    with open(path, "wb") as file:
        file.truncate(2 * each * experiences * SIZE)
    classes = [[2 * i, 2 * i + 1] for i in range(experiences)]
    train = [OnDisk(path, 2 * each * i, cs, each) for i, cs in enumerate(classes)]
    test = [OnDisk(path, 0, cs, 50) for cs in classes]
    made = {"train": train, "test": test}
    return benchmark_from_datasets(**{k: [as_classification_dataset(d) for d in v] for k, v in made.items()})  # pyright: ignore[reportArgumentType]  # Avalanche asks for targets alone


def rows(folder: Path, gigabytes: float) -> list[Row]:
    """All runs, the cheap ones first."""

    def mlp(classes: int = 10) -> Callable[[], nn.Module]:
        return partial(MLP, FEATURES, (128,), classes)

    images = partial(of_images, 5, 4096)
    return [
        *(Row(f"experiences {n}", partial(of_domains, n, 600), mlp(), 500) for n in (5, 20, 100)),
        *(Row(f"classes {n}", partial(of_classes, n, 200), mlp(n), 2000) for n in (10, 100)),
        *(Row(f"memory {n}", partial(of_domains, 40, 5000), mlp(), n) for n in (1000, 10_000)),
        Row("evaluated every 10", partial(of_domains, 100, 600), mlp(), 500, settings=(("evaluate_every", 10),)),
        *(Row(f"processes {n}", images, CNN, 200, batch=128, ranks=n) for n in (1, 2)),
        Row("experiences 300", partial(of_domains, 300, 600), mlp(), 500),
        Row("memory 100000", partial(of_domains, 40, 5000), mlp(), 100_000),
        Row(f"disk {gigabytes:g} GB", partial(of_file, folder / "pictures", gigabytes), pooled, 200),
        Row("classes 1000", partial(of_classes, 1000, 200), mlp(1000), 2000, settings=(("evaluate_every", 100),)),
    ]


def pooled() -> nn.Module:
    """A network of pictures of 128 x 128 that is quick next to reading them."""
    return nn.Sequential(nn.AvgPool2d(SIDE // 8), MLP(192, (64,), 20))


# ---- A run -------------------------------------------------------------------------------------------------


class Meter(Callback):
    """Notes what each experience costs: (wall, processor) seconds by part, and MiB resident at its end."""

    def __init__(self) -> None:
        self.costs: list[dict[str, Any]] = []
        self._marks: list[tuple[float, float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._close()
        self._mark()

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._mark()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._mark()  # the evaluation is over; the memory is yet to be filled

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._close()

    def _mark(self) -> None:
        self._marks.append((time.perf_counter(), time.process_time()))

    def _close(self) -> None:
        if len(self._marks) == 3:
            self._mark()
            start, evaluation, rest, end = self._marks
            spans = {"training": (start, evaluation), "evaluation": (evaluation, rest), "rest": (rest, end)}
            cost: dict[str, Any] = {k: [round(b[i] - a[i], 4) for i in (0, 1)] for k, (a, b) in spans.items()}
            self.costs.append({**cost, "MiB": round(resident(), 1)})
        self._marks = []


def resident() -> float:
    """MiB of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def learn(row: Row, to: Path) -> None:
    """Makes a run, in a process of its own, and writes what its experiences cost to a file."""
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    meter = Meter()
    learner = Learner(row.network(), BayesDual(row.memory))
    stream = StreamDataModule(row.stream(), batch_size=row.batch, **dict(row.settings))
    several: dict[str, Any] = {"devices": row.ranks, "strategy": "ddp_fork"} if row.ranks > 1 else {"devices": 1}
    writer = StreamCheckpoint(to.parent / "checkpoints")
    trainer = Trainer(**QUIET, accelerator="cpu", callbacks=[meter, writer, Told(meter, to)], **several)
    trainer.fit(learner, stream)


class Told(Callback):
    """Writes what was noted, in the first process, at the end."""

    def __init__(self, meter: Meter, to: Path) -> None:
        self.meter, self.to = meter, to

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.to.write_text(json.dumps({"costs": self.meter.costs, "accuracy": pl_module.history.accuracy[-1]}))


def made(row: Row) -> dict[str, Any]:
    """The costs of a run."""
    with tempfile.TemporaryDirectory() as folder:
        to, load = Path(folder, "costs.json"), os.getloadavg()[0]
        process = multiprocessing.get_context("fork").Process(target=learn, args=(row, to))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{row.name} ended with status {process.exitcode}")
        return {"row": row.name, "load": round((load + os.getloadavg()[0]) / 2, 1), **json.loads(to.read_text())}


# ---- What is shown -----------------------------------------------------------------------------------------


def fifth(values: list[float], which: int) -> float:
    """The median of a fifth of them."""
    n = len(values)
    return statistics.median(values[which * n // 5 : max((which + 1) * n // 5, which * n // 5 + 1)])


def seconds(run: dict[str, Any], part: str, clock: int = 1) -> list[float]:
    """Those of each experience; clock 0 is the wall's, 1 the processor's."""
    return [cost[part][clock] for cost in run["costs"]]


def flatness(run: dict[str, Any]) -> float:
    """What an experience costs in the last fifth, as a multiple of the second, but for evaluation."""
    both = [a + b for a, b in zip(seconds(run, "training"), seconds(run, "rest"), strict=True)]
    return fifth(both, 4) / fifth(both, 1)


def table(runs: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'':20}{'processor seconds of an experience, second fifth -> last':>66}{'MiB resident':>20}{'load':>6}"
    yield f"{'':20}" + "".join(f"{part:>20}" for part in PARTS) + f"{'flat':>6}"
    for run in runs:
        ends = [f"{fifth(s, 1):.3f} -> {fifth(s, 4):.3f}" for s in (seconds(run, part) for part in PARTS)]
        mib = [cost["MiB"] for cost in run["costs"]]
        yield (
            f"{run['row']:20}"
            + "".join(f"{end:>20}" for end in ends)
            + f"{flatness(run):6.2f}{f'{fifth(mib, 1):.0f} -> {fifth(mib, 4):.0f}':>20}{run['load']:6.1f}"
        )
    walls = {run["row"]: fifth(seconds(run, "training", 0), 2) for run in runs if run["row"].startswith("processes")}
    if len(walls) == 2:
        yield f"two processes train {walls['processes 1'] / walls['processes 2']:.2f} times as fast as one (wall time)"


def figure(runs: list[dict[str, Any]]) -> Figure:
    """Processor seconds and memory of each experience, over the place in the stream."""
    drawn = Figure((11, 6), layout="constrained")
    kinds = ("experiences", "classes", "memory")
    for column, kind in enumerate(kinds):
        above, below = drawn.add_subplot(2, 3, column + 1), drawn.add_subplot(2, 3, column + 4)
        of_kind = [run for run in runs if run["row"].startswith(kind)]
        for shade, run in zip(("#b0c4de", "#7b9ac4", "#3b6ea5", "#123a63"), of_kind[::-1], strict=False):
            place = [(i + 1) / len(run["costs"]) for i in range(len(run["costs"]))]
            both = [a + b for a, b in zip(seconds(run, "training"), seconds(run, "rest"), strict=True)]
            above.plot(place, both, color=shade, linewidth=1.4, label=run["row"])
            below.plot(place, [cost["MiB"] for cost in run["costs"]], color=shade, linewidth=1.4)
        above.set(ylim=(0, None), title=kind)
        above.legend(frameon=False, fontsize=8)
        below.set(xlabel="share of the stream learned", ylim=(0, None))
        for axes in (above, below):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        if not column:
            above.set_ylabel("processor seconds of an experience,\nbut for evaluation")
            below.set_ylabel("MiB resident")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="rows whose name has one of these")
    parser.add_argument("--minutes", type=float, default=15.0, help="begin no row after this time")
    parser.add_argument("--gigabytes", type=float, default=20.0, help="of the row disk")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/scaling.jsonl"))
    parser.add_argument("--table", action="store_true", help="make no runs")
    parser.add_argument("--figure", type=Path, help="where to draw")
    args = parser.parse_args()
    code, began = sources.digest_of_all()[: sources.SHORT], time.monotonic()
    kept = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder), args.gigabytes):
            there = any(run["row"] == row.name and run["code"] == code for run in kept)
            wanted = not args.table and not there and any(word in row.name for word in args.only)
            if wanted and time.monotonic() - began < 60 * args.minutes:
                kept.append({**made(row), "code": code})
                append_line(args.results, json.dumps(kept[-1]))
                print("\n".join([*table(kept[-1:])][2:]), flush=True)
    latest = {run["row"]: run for run in kept}
    order = [row.name for row in rows(Path(), args.gigabytes)]
    shown = sorted(latest.values(), key=lambda run: order.index(run["row"]) if run["row"] in order else len(order))
    print("\n".join(["", *table(shown)]))
    print(f"made by bayesdual (code {', '.join(sorted({run['code'] for run in shown}))})")
    if args.figure:
        figure(shown).savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
