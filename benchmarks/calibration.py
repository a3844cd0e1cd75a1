"""Does a network that learned a stream mean what it says, and does it know what it has not seen?

    python benchmarks/calibration.py --results benchmarks/results/calibration.jsonl [--table] [--figure FILE]

Split Fashion-MNIST is learned as in its configuration, with a tenth of the training data held out. Then its answers on
the test data are measured by

- the mean, samples and the linearised posterior of the last layer;
- the mean with a scaling (temperature, vector, isotonic) fitted to the examples held out; to 200 of them, as many as
  the memory has; to the memory's exemplars, weighted by what they stand for; and, of the temperature, to what the
  network would say of these had it not learned from them (leave-one-out logits, ``bayesdual.posterior``);
- peers, which learn the same stream with the same memory and K-prior by AdamW: one network, as it is and with a
  temperature of the examples held out; an ensemble of three; dropout at test time (32 passes); and the last-layer
  Laplace approximation of laplace-torch with its defaults (Kronecker factors, the prior by the marginal likelihood),
  which sees all training data again, as a stream's learner could not. Learning rate and dropout are chosen among three
  values each by the NLL of the examples held out, of a seed that is not shown.

Data of another kind: MNIST's digits and letters that we draw (``unfamiliar.py``). ``--score`` says by which score they
are told from the test data. Runs are kept in the results file; a second call goes on.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from unfamiliar import digits, letters

from bayesdual.algorithm import BayesDual
from bayesdual.comparison import Cell, Run, Store, made_by
from bayesdual.inspection import certainty_figure
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.measures import CALIBRATION_BINS, answers_of, measured, split_entropy, told_apart
from bayesdual.models import MLP
from bayesdual.posterior import leave_one_out_logits, watching_last_linear
from bayesdual.prediction import Predicted, fit_isotonic, fit_temperature, fit_vector_scaling, prediction_by
from bayesdual.scenarios import SplitFMNIST

Way = Callable[[Tensor], Predicted]
"""Inputs (B, 1, 28, 28), as they are, to a prediction."""
Result = dict[str, Any]

PASSES, MEMBERS, BATCH = 32, 3, 1000
RATES, DROPOUTS, TUNING_SEED = (3e-4, 1e-3, 3e-3), (0.1, 0.2, 0.5), 0
SHOWN = ("accuracy", "nll", "ece", "adaptive_ece", "brier", "aurc")
FEW = 200  # examples held out, as many as the memory has


# ---- What is learned ---------------------------------------------------------------------------------------


def benchmark_of(seed: int) -> Any:
    return SplitFMNIST(validation=0.1, seed=seed)


def learned(seed: int, network: Callable[[], nn.Module], optimizer: Any = None) -> Learner:
    """A learner that has learned the stream, in eval mode. The order of its examples follows from the seed."""
    torch.manual_seed(seed)
    prediction: Any = "linearised" if optimizer is None else "mean"  # only evaluations differ
    learner = Learner(network(), BayesDual(200), optimizer, prediction=prediction)
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", enable_checkpointing=False, **quiet)
    trainer.fit(learner, StreamDataModule(benchmark_of(seed % 100), 1, 64))
    return learner.eval()


def with_dropout(rate: float) -> nn.Module:
    """The MLP with dropout after each hidden layer."""
    layers = [part for layer in MLP(784, (256, 256), 10) for part in (layer, nn.Dropout(rate))]
    return nn.Sequential(*(part for i, part in enumerate(layers) if i % 2 == 0 or isinstance(layers[i - 1], nn.ReLU)))


def examples(stream: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """All inputs and labels of a stream."""
    data = [experience.tensors() for experience in stream]
    return torch.cat([d.x for d in data]), torch.cat([d.y for d in data])


@torch.no_grad()
def logits_of(learner: Learner, x: Tensor) -> Tensor:
    return torch.cat([learner(part, torch.zeros(len(part), dtype=torch.int64)) for part in x.split(BATCH)])


# ---- How it answers ----------------------------------------------------------------------------------------


def by_posterior(learner: Learner, name: Any) -> Way:
    predict = prediction_by(name)

    def way(x: Tensor) -> Predicted:
        t = torch.zeros(len(x), dtype=torch.int64)
        return predict(learner.network, learner, learner.algorithm.posterior, x, t)

    return way


def scaled(learner: Learner, scale: Callable[[Tensor], Tensor] = lambda f: f.softmax(1)) -> Way:
    """The mean's logits made probabilities in some way."""
    return lambda x: Predicted(scale(logits_of(learner, x)))


def scalings(f: Tensor, y: Tensor, weights: Tensor | None = None) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions from logits to probabilities, fitted to logits f (B, C), labels y (B,) and what each stands for."""
    temperature = fit_temperature(f, y, weights)
    a, b = fit_vector_scaling(f, y, weights)
    isotonic = fit_isotonic(f.softmax(1), y, weights)
    return {
        "temperature": lambda g: (g / temperature).softmax(1),
        "vector": lambda g: (a * g + b).softmax(1),
        "isotonic": lambda g: isotonic(g.softmax(1)),
    }


@torch.no_grad()
def left_out(learner: Learner) -> Tensor:
    """Logits of the memory's exemplars by a network that had not learned from them, to first order."""
    z, last = learner.algorithm.memory.exemplars, learner.algorithm.posterior.last_layer
    with watching_last_linear(learner.network) as seen:
        f = learner(z.x, z.tasks)
    return leave_one_out_logits(f, z.y, last.variance(seen.features))


def ours(learner: Learner, held_out: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Way]:
    z = learner.algorithm.memory.exemplars
    f, y = logits_of(learner, held_out[0]), held_out[1]
    few = torch.randperm(len(y), generator=generator)[:FEW]
    ways = {"mean": scaled(learner)} | {name: by_posterior(learner, name) for name in ("samples", "linearised")}
    fitted = {
        "held out": scalings(f, y),
        f"{FEW} held out": scalings(f[few], y[few]),
        "memory": scalings(logits_of(learner, z.x), z.y, z.weights),
        "memory left out": {"temperature": scalings(left_out(learner), z.y, z.weights)["temperature"]},
    }
    for source, functions in fitted.items():
        ways |= {f"{name}, {source}": scaled(learner, function) for name, function in functions.items()}
    return ways


def peers(members: Sequence[Learner], train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> dict[str, Way]:
    first = members[0]
    temperature = fit_temperature(logits_of(first, held_out[0]), held_out[1])

    def ensemble(x: Tensor) -> Predicted:
        p = torch.stack([logits_of(member, x).softmax(1) for member in members])
        return Predicted(p.mean(0), split_entropy(p).epistemic)

    return {
        "AdamW": scaled(first),
        "AdamW, temperature, held out": scaled(first, lambda f: (f / temperature).softmax(1)),
        "AdamW, last-layer Laplace": laplace(first, *train),
        f"AdamW, ensemble of {MEMBERS}": ensemble,
    }


def laplace(learner: Learner, x: Tensor, y: Tensor) -> Way:
    from laplace import Laplace
    from torch.utils.data import DataLoader, TensorDataset

    ready = lambda x: (x.float() / 255 - learner._mean[0]) / learner._std[0]  # noqa: E731
    approximation: Any = Laplace(learner.network, "classification")  # of the last layer, by Kronecker factors
    with torch.inference_mode(False), torch.enable_grad():
        approximation.fit(DataLoader(TensorDataset(ready(x), y), BATCH))
        approximation.optimize_prior_precision(method="marglik")
    return lambda x: Predicted(torch.cat([approximation(ready(part)).detach() for part in x.split(BATCH)]))


def dropping(learner: Learner) -> Way:
    def way(x: Tensor) -> Predicted:
        for module in learner.network.modules():
            module.train(isinstance(module, nn.Dropout))
        p = torch.stack([logits_of(learner, x).softmax(1) for _ in range(PASSES)])
        learner.eval()
        return Predicted(p.mean(0), split_entropy(p).epistemic)

    return way


# ---- Runs --------------------------------------------------------------------------------------------------


def judged(way: Way, test: tuple[Tensor, Tensor], others: Mapping[str, Tensor]) -> Result:
    """All measures of a way to answer, how well others are told from the test data, and the reliability diagram."""
    known = answers_of(*_ordered(way, *test))
    bins = (known.confidence * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1)
    diagram = [
        [int(mask.sum()), float(known.confidence[mask].mean()), float(known.right[mask].mean())]
        for mask in (bins == b for b in range(CALIBRATION_BINS))
        if mask.any()
    ]
    apart = {
        name: told_apart(known, answers_of(*_ordered(way, x, torch.zeros(len(x), dtype=torch.int64))))
        for name, x in others.items()
    }
    return {**measured(known), **apart, "diagram": diagram}


def _ordered(way: Way, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    parts = [way(part) for part in x.split(BATCH)]
    known = [part.epistemic for part in parts if part.epistemic is not None]
    return torch.cat([part.probabilities for part in parts]), y, torch.cat(known) if known else None


def adamw(rate: float) -> Any:
    return partial(torch.optim.AdamW, lr=rate)


def run(kind: str, seed: int, rate: float = 0.0, dropout: float = 0.0) -> Result:
    """What one kind of learner comes to: ``ours``, ``adamw`` or ``dropout``."""
    warnings.simplefilter("ignore")
    benchmark = benchmark_of(seed)
    streams = {name: examples(getattr(benchmark, f"{name}_stream")) for name in ("train", "valid", "test")}
    network = partial(MLP, 784, (256, 256), 10)
    over_stream: list[Any] = []
    if kind == "ours":
        learner = learned(seed, network)
        over_stream = learner.history.over_stream
        ways = ours(learner, streams["valid"], torch.Generator().manual_seed(seed))
    elif kind == "adamw":
        members = [learned(seed + 100 * i, network, adamw(rate)) for i in range(MEMBERS)]
        ways = peers(members, streams["train"], streams["valid"])
    else:
        ways = {"AdamW, dropout": dropping(learned(seed, partial(with_dropout, dropout), adamw(rate)))}
    torch.manual_seed(seed)
    others = {"digits": digits()[::2], "letters": letters()[::2]}
    with torch.no_grad():
        found = {name: judged(way, streams["test"], others) for name, way in ways.items()}
    return {"ways": found, "over_stream": over_stream}


def tried(seed: int, rate: float, dropout: float) -> Result:
    """NLL of the examples held out, by AdamW; with dropout by its passes."""
    warnings.simplefilter("ignore")
    network = partial(with_dropout, dropout) if dropout else partial(MLP, 784, (256, 256), 10)
    learner = learned(seed, network, adamw(rate))
    x, y = examples(benchmark_of(seed).valid_stream)
    with torch.no_grad():
        p = (dropping if dropout else scaled)(learner)(x).probabilities
    return {"nll": measured(answers_of(p, y))["nll"]}


def cell(learn: str, title: str, **arguments: Any) -> Cell:
    return Cell(title, {"learn": f"calibration.{learn}", "arguments": arguments})


def all_runs(seeds: Sequence[int], make: Callable[[Cell], Run | None]) -> tuple[dict[int, list[Result]], list[Run]]:
    """By seed the results of all kinds, and the runs they are of; a seed that lacks one is left out."""
    titles = {(rate, 0.0): f"tried, AdamW {rate:g}" for rate in RATES}
    nll = lambda rate, dropout, title: known(make(cell("tried", title, seed=TUNING_SEED, rate=rate, dropout=dropout)))  # noqa: E731
    rate = min(RATES, key=lambda r: nll(r, 0.0, titles[r, 0.0]))
    dropout = min(DROPOUTS, key=lambda d: nll(rate, d, f"tried, AdamW {rate:g}, dropout {d:g}"))
    print(f"chosen by the NLL of examples held out, seed {TUNING_SEED}: AdamW's rate {rate:g}, dropout {dropout:g}")
    found, runs = {}, []
    dropping_too: Any = {"kind": "dropout", "rate": rate, "dropout": dropout}
    for seed in seeds:
        cells = [
            cell("run", f"ours, seed {seed}", kind="ours", seed=seed),
            cell("run", f"AdamW {rate:g}, seed {seed}", kind="adamw", seed=seed, rate=rate),
            cell("run", f"AdamW {rate:g}, dropout {dropout:g}, seed {seed}", **dropping_too, seed=seed),
        ]  # fmt: skip
        made = [one for one in map(make, cells) if one is not None]
        if len(made) == len(cells):
            found[seed] = [one.results for one in made if one.results]
            runs += made
    return found, runs


def known(run: Run | None) -> float:
    return float("inf") if run is None or run.results is None else run.results["nll"]


# ---- What is shown -----------------------------------------------------------------------------------------


def by_way(found: Mapping[int, Sequence[Result]]) -> dict[str, list[Result]]:
    """Of each way to answer the results, a seed each."""
    ways: dict[str, list[Result]] = {}
    for results in found.values():
        for result in results:
            for name, measures in result["ways"].items():
                ways.setdefault(name, []).append(measures)
    return ways


def spread(values: Sequence[float], digits: int = 3) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def table(ways: Mapping[str, Sequence[Result]], score: str) -> list[str]:
    names = [
        "accuracy",
        "NLL",
        "ECE",
        "adaptive ECE",
        "Brier",
        "AURC",
        "digits: AUROC",
        "FPR95",
        "letters: AUROC",
        "FPR95",
    ]
    lines = [f"| answers by | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for name, runs in ways.items():
        cells = [spread([r[key] for r in runs], 4 if "ece" in key else 3) for key in SHOWN]
        for other in ("digits", "letters"):
            for key in (f"auroc_{score}", f"fpr95_{score}"):
                values = [r[other][key] for r in runs if key in r[other]]
                cells.append(spread(values) if values else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def stream_means(found: Mapping[int, Sequence[Result]]) -> list[dict[str, Any]]:
    """What is known after each experience, in the mean over seeds."""
    streams = [results[0]["over_stream"] for results in found.values()]
    return [_mean(rows) for rows in zip(*streams, strict=True)]


def _mean(values: Sequence[Any]) -> Any:
    """The mean of nested mappings of numbers."""
    if isinstance(values[0], Mapping):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    return statistics.mean(values)


def stream_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    scores = ("entropy", "epistemic")
    lines = [
        "| after | group | accuracy | NLL | ECE | entropy | of the weights | AUROC, by entropy | by the weights' |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        for group in ("old", "new", "unseen"):
            if group in row:
                numbers = [row[group][key] for key in ("accuracy", "nll", "ece", *scores)]
                apart = row["told_apart"].get(group, {})
                cells = [f"{value:.3f}" for value in numbers]
                cells += [f"{apart[f'auroc_{s}']:.3f}" if apart else "-" for s in scores]
                lines.append(f"| {row['after']} | {group} | {' | '.join(cells)} |")
    return lines


def figure(ways: Mapping[str, Sequence[Result]]) -> Figure:
    """Reliability diagrams; ECE of each way and seed; and how well digits and letters are told from the test data."""
    drawing = Figure((13, 5), layout="constrained")
    left, middle, right = drawing.subplots(1, 3, width_ratios=(1.1, 1, 0.8))
    colours = {"mean": "#5b6770", "temperature, held out": "#1b78b4", "temperature, memory": "#d95f02"}
    colours |= {"linearised": "#2a9d5c", f"AdamW, ensemble of {MEMBERS}": "#7b5ea7"}
    left.plot([0, 1], [0, 1], color="black", lw=0.8, ls="--")
    for name, colour in colours.items():
        rows = [row for result in ways[name] for row in result["diagram"]]
        places = sorted({int(c * CALIBRATION_BINS) for _, c, _ in rows})
        points = []
        for place in places:
            mine = [row for row in rows if int(row[1] * CALIBRATION_BINS) == place]
            total = sum(n for n, _, _ in mine)
            if total >= 30:
                points.append([sum(n * row for n, *rest in mine for row in [rest[i]]) / total for i in (0, 1)])
        left.plot(*zip(*points, strict=True), "o-", color=colour, ms=4, label=name)
    left.set(xlabel="confidence", ylabel="accuracy", title="of each confidence, how many are right", xlim=(0.2, 1.01))
    left.legend(fontsize=8)
    for row, (name, runs) in enumerate(ways.items()):
        colour = colours.get(name, "#9aa5ad")
        middle.plot([r["ece"] for r in runs], [row] * len(runs), "o", color=colour, alpha=0.8)
        for other, mark in (("digits", "o"), ("letters", "x")):
            values = [r[other]["auroc_entropy"] for r in runs]
            right.plot(statistics.mean(values), row, mark, color=colour, label=other if row == 0 else None)
    middle.set(xlabel="ECE, a dot a seed", yticks=range(len(ways)), yticklabels=list(ways))
    right.set(xlabel="AUROC against other data, by entropy", yticks=range(len(ways)), yticklabels=[])
    right.legend(fontsize=8)
    for axes in (middle, right):
        axes.invert_yaxis()
        axes.grid(axis="y", alpha=0.3)
    middle.set_xlim(left=0)
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/calibration.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--score", choices=("entropy", "max_probability", "epistemic"), default="entropy")
    parser.add_argument("--table", action="store_true", help="make no runs")
    parser.add_argument(
        "--figure", type=Path, help="where to draw it, as a PNG; over the stream beside it, NAME_stream"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(args.results)
    latest = store.latest()
    found, runs = all_runs(args.seeds, (lambda c: latest.get(c.title)) if args.table else store.make)
    ways, over_stream = by_way(found), stream_means(found)
    print("\n".join(["", *table(ways, args.score), "", *stream_table(over_stream)]))
    print(f"\nmean ± sd of seeds {', '.join(map(str, found))}\nmade by {made_by(runs)}")
    if args.figure:
        figure(ways).savefig(args.figure, dpi=110)
        certainty_figure(over_stream).savefig(args.figure.with_stem(f"{args.figure.stem}_stream"), dpi=110)


if __name__ == "__main__":
    main()
