"""Do sets of labels cover in each experience of a stream, after each? And who notices a new task?

    python benchmarks/conformal_stream.py --results benchmarks/results/conformal_stream.jsonl [--table]
    python benchmarks/conformal_stream.py --stream flights --results benchmarks/results/conformal_flights.jsonl

Split Fashion-MNIST is learned as in its configuration, with a tenth of the training data held out: half of it to
calibrate on, half to test on beside the test data. (Calibration promises coverage of examples drawn as those that it
saw were; whether the test data were drawn like the training data is another question, and the two answer it.) After
each experience the sets of LAC (alpha .1) of the experiences so far are made by thresholds

- *once*: of the held-out examples of the first experience, when it had been learned, and never again;
- *newest*: of the held-out examples of the experience just learned;
- *replayed*: of the exemplars that are replayed in training, weighted by what they stand for;
- *one*: of a memory of held-out examples, weighted alike, one threshold for all labels;
- *by experience*: of the same memory, a threshold for the labels of each experience.

The flights of 2013 (``configs/flights.yaml``; ``benchmarks/tables.py`` writes the table) come month by month, and each
month has both labels. Of a flight it is known in which month it is, so that *by experience* is the threshold of its
month. A fifth of the training data is held out, the latest of each month's, as the test data are the latest of all:
the part that is held out is like what it is calibrated on, and the test data are a week later.

The martingale is fed with test examples of the experiences so far in random order (500), and then with training
examples of the next, as a learner would meet them: the score of an example is 1 - p of its label, or, without labels,
1 - the largest p. An alarm is at 100 times the capital it began with.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn

from bayesdual.algorithm import BayesDual
from bayesdual.comparison import Cell, Run, Store, made_by
from bayesdual.conformal import (
    alarm,
    conformal_quantile,
    jumper_martingale,
    keep_for_calibration,
    lac_scores,
    one_threshold,
    p_values,
    thresholds_by_experience,
)
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.memory import Exemplars, Memory
from bayesdual.models import MLP, evaluating
from bayesdual.scenarios import SplitFMNIST, from_table
from bayesdual.stream import TensorData

ALPHA = 0.1
WAYS = ("once", "newest", "replayed", "one", "by experience")
BEFORE, AFTER = 500, 500  # examples that the martingale is fed with


class Coverage(Callback):
    """Measures after each experience.

    Args:
        benchmark: With a stream ``valid``, of examples held out.
        budget: Of the memory of these.
        generator: Source of randomness.
    """

    def __init__(self, benchmark: Any, budget: int, generator: torch.Generator) -> None:
        self.test, self.valid, self.train = (
            [experience.tensors() for experience in getattr(benchmark, f"{name}_stream")]
            for name in ("test", "valid", "train")
        )
        halves = [part for data in self.valid for part in halved(data, generator)]
        self.valid, self.held_out = halves[::2], halves[1::2]
        self.memory = Memory(budget)
        self.generator = generator
        self.labels_tell = len({int(y) for data in self.train for y in data.y.unique()}) == sum(
            len(data.y.unique()) for data in self.train
        )  # which experience an example is of
        self.results: list[dict[str, Any]] = []
        self._once = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.stream.experience > len(self.results):
            self.measure(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.measure(pl_module)

    @torch.no_grad()
    def measure(self, learner: Learner) -> None:
        last = len(self.results)
        keep_for_calibration(self.memory, self.valid[last], last, self.generator)
        with evaluating(learner):
            z, replayed, newest = self.memory.exemplars, learner.algorithm.memory.exemplars, self.valid[last]
            of_z, of_replayed, of_newest = (scores(learner, data) for data in (z, replayed, newest))
            tests = [scores(learner, data) for data in self.test[: last + 1]]
            others = [scores(learner, data) for data in self.held_out[: last + 1]]
            self._once = self._once if last else own(of_newest, newest.y, ALPHA)
            everywhere = lambda q: torch.full((of_z.shape[1],), q)  # noqa: E731
            thresholds = {
                "once": everywhere(self._once),
                "newest": everywhere(own(of_newest, newest.y, ALPHA)),
                "replayed": one_threshold(of_replayed, replayed, ALPHA),
                "one": one_threshold(of_z, z, ALPHA),
            }
            result: dict[str, Any] = {"test": {}, "held out": {}, "size": {}}
            for way in WAYS:
                known = way == "by experience"
                q = self.by_experience(of_z, z) if known else [thresholds[way]] * (last + 1)
                of_tests, of_others = (
                    [s <= bound for s, bound in zip(part, q, strict=True)] for part in (tests, others)
                )
                result["test"][way] = [covering(sets, d.y) for sets, d in zip(of_tests, self.test, strict=False)]
                result["held out"][way] = [
                    covering(sets, d.y) for sets, d in zip(of_others, self.held_out, strict=False)
                ]
                result["size"][way] = [float(sets.sum(1).float().mean()) for sets in of_tests]
            if last + 1 < len(self.train):
                result["alarm"] = self.alarms(learner, tests, of_z, z.y, self.train[last + 1])
        self.results.append(result)

    def by_experience(self, of_z: Tensor, z: Exemplars) -> list[Tensor]:
        """Thresholds of the labels, for the examples of each experience so far."""
        experiences = [z.experience == e for e in range(len(self.results) + 1)]
        if self.labels_tell:
            return [thresholds_by_experience(of_z, z, ALPHA)] * len(experiences)
        return [torch.full((of_z.shape[1],), own(of_z[rows], z.y[rows], ALPHA)) for rows in experiences]

    def alarms(self, learner: Learner, tests: list[Tensor], of_z: Tensor, z_y: Tensor, coming: Any) -> dict[str, Any]:
        """After how many examples of the next experience there is an alarm; negative: before the first; None: never."""
        old, old_y = torch.cat(tests), torch.cat([data.y for data in self.test[: len(tests)]])
        rows = torch.randperm(len(old), generator=self.generator)[:BEFORE]
        new = torch.randperm(len(coming.y), generator=self.generator)[:AFTER]
        of_new = lac_scores(learner(coming.inputs(new), coming.tasks[new]).softmax(1))
        both = {
            "labels": [
                s.gather(1, y[:, None])[:, 0]
                for s, y in ((of_z, z_y), (old[rows], old_y[rows]), (of_new, coming.y[new]))
            ],
            "no labels": [s.amin(1) for s in (of_z, old[rows], of_new)],
        }
        result = {}
        for name, (seen, before, after) in both.items():
            p = p_values(torch.cat([before, after]), seen, self.generator)
            when = alarm(jumper_martingale(p))
            result[name] = None if when is None else when - BEFORE + 1
        return result


def halved(data: TensorData, generator: torch.Generator) -> list[TensorData]:
    """Two random halves."""
    parts = torch.randperm(len(data), generator=generator).chunk(2)
    return [replace(data, x=data.x[p], y=data.y[p], tasks=data.tasks[p], index=data.index[p]) for p in parts]


def covering(sets: Tensor, y: Tensor) -> float:
    """The share of labels (B,) that are in their sets (B, C)."""
    return float(sets.gather(1, y[:, None]).float().mean())


def scores(learner: Learner, data: Any) -> Tensor:
    """LAC's, of exemplars or the examples of an experience."""
    return torch.cat(
        [lac_scores(learner(x, t).softmax(1)) for x, t in zip(data.x.split(1000), data.tasks.split(1000), strict=True)]
    )


def own(of_all: Tensor, y: Tensor, alpha: float) -> float:
    """The quantile of the scores of labels that are right."""
    return conformal_quantile(of_all.gather(1, y[:, None])[:, 0], alpha)


class Stream(NamedTuple):
    """What is learned, and by which network."""

    benchmark: Callable[[int], Any]
    network: Callable[[], nn.Module]


def months(seed: int) -> Any:
    how: Any = {"by": "time", "time": "date", "every": "month", "validation": 0.2, "seed": seed}
    return from_table("data/flights.csv", "late", **how)


STREAMS = {
    "clothes": Stream(lambda seed: SplitFMNIST(validation=0.1, seed=seed), partial(MLP, 784, (256, 256), 10)),
    "flights": Stream(months, partial(MLP, 128, (100, 100), 2)),
}


def run(seed: int, budget: int, stream: str = "clothes") -> dict[str, Any]:
    """What is measured after each experience."""
    warnings.simplefilter("ignore")
    torch.manual_seed(seed)
    benchmark = STREAMS[stream].benchmark(seed)
    coverage = Coverage(benchmark, budget, torch.Generator().manual_seed(seed))
    learner = Learner(STREAMS[stream].network(), BayesDual(200))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", enable_checkpointing=False, callbacks=[coverage], **quiet)
    trainer.fit(learner, StreamDataModule(benchmark, 1, 64))
    return {"experiences": coverage.results}


def cell(seed: int, budget: int, stream: str) -> Cell:
    """A run; see :func:`run`."""
    arguments = {"seed": seed, "budget": budget, "stream": stream}
    title = f"memory {budget}, seed {seed}" if stream == "clothes" else f"{stream}, memory {budget}, seed {seed}"
    return Cell(title, {"learn": "conformal_stream.run", "arguments": arguments})


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def table(runs: list[Mapping[str, Any]]) -> list[str]:
    """Coverage in each experience at the end, the greatest distance of any after any, and sizes."""
    n = len(runs[0]["experiences"])
    numbers = " | ".join(f"exp. {e + 1}" for e in range(n))
    lines = [f"| thresholds | on | {numbers} | furthest from .9 | after, in | labels |", "|---|---|" + "---|" * (n + 3)]
    for way, on in product(WAYS, ("held out", "test")):
        cover = [[mean(r["experiences"][t][on][way][e] for r in runs) for e in range(t + 1)] for t in range(n)]
        size = mean(mean(r["experiences"][-1]["size"][way]) for r in runs)
        gap, t, e = max((abs(c - 1 + ALPHA), t, e) for t, row in enumerate(cover) for e, c in enumerate(row))
        last = " | ".join(f"{c:.3f}" for c in cover[-1])
        lines.append(f"| {way} | {on} | {last} | {gap:.3f} | {t + 1}, {e + 1} | {size:.2f} |")
    return lines


def alarm_table(runs: list[Mapping[str, Any]]) -> list[str]:
    """Alarms at each boundary."""
    lines = [
        "| score | boundaries | false alarms before | alarms after | examples until then (median) |",
        "|---|---|---|---|---|",
    ]
    for name in ("labels", "no labels"):
        found = [e["alarm"][name] for r in runs for e in r["experiences"] if "alarm" in e]
        true = [when for when in found if when is not None and when > 0]
        false = sum(when is not None and when <= 0 for when in found)
        lines.append(f"| {name} | {len(found)} | {false} | {len(true)} | {statistics.median(true) if true else '-'} |")
    return lines


def figure(runs: list[Mapping[str, Any]]) -> Figure:
    """Coverage of each experience after each, by four kinds of thresholds."""
    drawing = Figure((11, 3.4), layout="constrained")
    n = len(runs[0]["experiences"])
    colours = ("#d95f02", "#1b78b4", "#2a9d5c", "#7b5ea7", "#5b6770")
    for place, way in enumerate(("once", "replayed", "one", "by experience")):
        axes = drawing.add_subplot(1, 4, place + 1)
        axes.axhspan(0.88, 0.92, color="#e8e8e8")
        axes.axhline(0.9, color="black", lw=0.8, ls="--")
        for e in range(n):
            for r in runs:
                values = [r["experiences"][t]["held out"][way][e] for t in range(e, n)]
                axes.plot(range(e + 1, n + 1), values, "-", color=colours[e % 5], alpha=0.25, lw=0.8)
            values = [mean(r["experiences"][t]["held out"][way][e] for r in runs) for t in range(e, n)]
            axes.plot(range(e + 1, n + 1), values, "o-", color=colours[e % 5], ms=4, label=f"experience {e + 1}")
        axes.set(title=way, xlabel="experiences learned", ylim=(0.25, 1.02), xticks=range(1, n + 1))
        if place == 0:
            axes.set_ylabel("coverage (axis begins at .25)")
    axes.legend(fontsize=8, loc="lower left")
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/conformal_stream.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5, 6, 7, 8])
    parser.add_argument("--stream", choices=STREAMS, default="clothes")
    parser.add_argument("--budget", type=int, default=1000, help="examples kept for calibration")
    parser.add_argument("--table", action="store_true", help="make no runs")
    parser.add_argument("--figure", type=Path, help="where to draw it, as a PNG")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(args.results)
    latest = store.latest()
    made: list[Run] = []
    for seed in args.seeds:
        one = cell(seed, args.budget, args.stream)
        found = latest.get(one.title) if args.table else store.make(one)
        if found is not None:
            made.append(found)
        if not args.table:
            print(f"seed {seed}: learned and measured", flush=True)
    runs = [one.results for one in made if one.results]
    print("\n".join([*table(runs), "", *alarm_table(runs)]))
    print(f"\n{len(runs)} seeds, memory of {args.budget}; made by {made_by(made)}")
    if args.figure:
        figure(runs).savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
