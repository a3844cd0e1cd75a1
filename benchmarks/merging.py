"""Experts of parts of Fashion-MNIST, merged by each method; and the memory that merging large files takes.

    python benchmarks/merging.py --results benchmarks/results/merging.jsonl [--problems ...] [--seeds 3 4 5] [--table]
    python benchmarks/merging.py --memory

A base is trained on 1,500 images, and from it three experts on 1,500 others each: of images turned by 45, 90 and 135
degrees (an MLP, and a CNN), or of the classes 0-3, 4-6 and 7-9 (an MLP); likewise on CLINC150's queries, by features of
a frozen sentence encoder, fifty of the 150 intents each (an MLP with one hidden layer). ``joint`` is trained from the
base on the data of all. Every method gets six settings (three where it is hardly damped), and takes the one of the
highest accuracy on 3,000 examples of the training set that nobody is trained on. What is shown is the accuracy on up to
4,000 test examples of each expert's part, in the mean over the parts. Class groups are shown a second time after the
last layer has been fitted again on a memory of 200 training images (one query of each intent), for the base, each merge
and the joint network alike. ``inputs again``: the input factors are those that each expert's data have in a first
merge, as RegMean++ has them.

Every run is appended to the results file, and none is made twice by the same code. ``--table`` runs nothing, and shows
the last run of each kind. ``--memory`` writes six models of 124 million parameters with their posteriors to a temporary
folder (6 GB), and merges five of them.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.comparison import Cell, Run, Store, made_by, sign_flip_p
from bayesdual.merging import merge
from bayesdual.models import CNN, MLP
from bayesdual.posterior import ggn_diagonal, kronecker_curvature
from bayesdual.scenarios import fashion_mnist
from bayesdual.scenarios.datasets import RawDataset
from bayesdual.scenarios.domain import Rotation
from bayesdual.stream import normalise

TRAIN, VALIDATION, TEST = 1500, 1000, 4000  # images of each part
EPOCHS, BATCH, LEARNING_RATE = 5, 64, 1e-3
PAIRS = 1000  # backward passes of a curvature
MEMORY, PULLS = 200, (0.003, 0.03, 0.3)  # images that a head is fitted on again, and how strongly it is held

Data = tuple[Tensor, Tensor]


class Problem(NamedTuple):
    """What the experts are experts of."""

    network: Callable[[], nn.Module]
    angles: tuple[float, ...] = (0.0, 0.0, 0.0)  # of each expert's images
    classes: tuple[Sequence[int], ...] = (range(10),) * 3
    source: Callable[[], RawDataset] = fashion_mnist


def intents() -> RawDataset:
    """CLINC150 by the features of a frozen sentence encoder, read from ``models/all-MiniLM-L6-v2`` (extra ``lora``)."""
    from bayesdual.lora import SentenceFeatures
    from bayesdual.scenarios import SplitCLINC150, features_of

    encoder = "models/all-MiniLM-L6-v2"
    split = features_of(partial(SplitCLINC150, encoder, 1), SentenceFeatures(encoder), standardise=False)
    (train,), (test,) = ([e.tensors() for e in stream] for stream in (split.train_stream, split.test_stream))
    return RawDataset("CLINC150", train.x, train.y, test.x, test.y, (), (), tuple(map(str, range(150))))


PROBLEMS = {
    "rotations, MLP": Problem(partial(MLP, 784), (45.0, 90.0, 135.0)),
    "rotations, CNN": Problem(CNN, (45.0, 90.0, 135.0)),
    "class groups, MLP": Problem(partial(MLP, 784), classes=(range(4), range(4, 7), range(7, 10))),
    "class groups, CLINC150 features": Problem(
        partial(MLP, 384, (256,), 150),
        classes=(range(50), range(50, 100), range(100, 150)),
        source=intents,
    ),
}


def grid(**values: Sequence[float]) -> list[dict[str, float]]:
    """All combinations."""
    return [dict(zip(values, some, strict=True)) for some in itertools.product(*values.values())]


FROM_BASE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
METHODS: Mapping[str, tuple[str, str | None, list[dict[str, float]]]] = {  # method, curvature and settings
    "average": ("average", None, grid(alpha=FROM_BASE)),
    "task arithmetic": ("task_arithmetic", None, grid(alpha=(0.2, 0.3, 0.4, 0.5, 0.7, 1.0))),
    "TIES": ("ties", None, grid(alpha=(0.7, 1.0), density=(0.2, 0.5, 0.8))),
    "Fisher": ("fisher", "diagonal", grid(alpha=FROM_BASE)),
    "RegMean": ("regmean", "kronecker", grid(off_diagonal=(0.3, 0.5, 0.7, 0.9, 0.97, 1.0))),
    "gradient matching, diagonal": (
        "gradient_matching",
        "diagonal",
        grid(base_scale=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0)),
    ),
    "gradient matching, Kronecker": (
        "gradient_matching",
        "kronecker",
        grid(base_scale=(0.01, 0.1, 1.0), off_diagonal=(0.5, 0.9), tolerance=(1e-3,)),
    ),
    "the same, hardly damped": (
        "gradient_matching",
        "kronecker",
        grid(base_scale=(0.01, 0.1, 1.0), off_diagonal=(1.0,), damping=(0.01,), tolerance=(1e-2,)),
    ),
}
TWICE = ", inputs again"
AGAIN = {
    "RegMean": ("regmean", {}),
    "gradient matching, Kronecker": ("gradient_matching", {"base_scale": 0.1, "tolerance": 1e-3}),
}
OURS = "gradient matching, Kronecker" + TWICE


class Parts(NamedTuple):
    """Images and labels: of the base, of each expert for three uses, and the memory."""

    base: Data
    train: list[Data]
    validation: list[Data]
    test: list[Data]
    memory: Data


def parts_of(problem: Problem, seed: int) -> Parts:
    """Draws all data of a problem."""
    raw = problem.source()
    generator = torch.Generator().manual_seed(seed)
    everything = range(raw.n_classes)

    def prepared(x: Tensor, y: Tensor, rows: Tensor, angle: float) -> Data:
        images = x[rows]
        return normalise(Rotation(angle)(images) if angle else images, raw.mean, raw.std), y[rows]

    free = torch.randperm(len(raw.train_x), generator=generator)

    def take(n: int, classes: Sequence[int]) -> Tensor:
        nonlocal free
        fitting = torch.isin(raw.train_y[free], torch.tensor(list(classes)))
        chosen = fitting & (fitting.cumsum(0) <= n)
        rows, free = free[chosen], free[~chosen]
        return rows

    base = prepared(raw.train_x, raw.train_y, take(TRAIN, everything), 0.0)
    of_experts = list(zip(problem.angles, problem.classes, strict=True))
    train = [prepared(raw.train_x, raw.train_y, take(TRAIN, classes), angle) for angle, classes in of_experts]
    validation = [prepared(raw.train_x, raw.train_y, take(VALIDATION, classes), angle) for angle, classes in of_experts]
    test = []
    for angle, classes in of_experts:
        rows = torch.isin(raw.test_y, torch.tensor(list(classes))).nonzero().flatten()[:TEST]
        test.append(prepared(raw.test_x, raw.test_y, rows, angle))
    x, y = (torch.cat([pair[i] for pair in (base, *train)]) for i in (0, 1))
    kept = torch.cat([(y == c).nonzero().flatten()[: MEMORY // len(everything)] for c in everything])
    return Parts(base, train, validation, test, (x[kept], y[kept]))


def train(network: nn.Module, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """Trains with Adam, whose learning rate falls to 0."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, EPOCHS * -(-len(x) // BATCH))
    network.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def refitted(network: nn.Module, memory: Data, pull: float) -> nn.Module:
    """With its last layer at the minimum of the loss on the memory plus pull / 2 times the squared distance to it."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    assert isinstance(network, nn.Sequential)
    head, before = network[-1].requires_grad_(True), [p.clone() for p in network[-1].parameters()]
    features = nn.Sequential(*list(network)[:-1])(memory[0])
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        moved = sum((p - old).square().sum() for p, old in zip(head.parameters(), before, strict=True))
        value = F.cross_entropy(head(features), memory[1]) + pull / 2 * moved
        value.backward()
        return value

    optimizer.step(loss)
    return network


@torch.no_grad()
def accuracies(network: nn.Module, parts: Sequence[Data]) -> list[float]:
    """The accuracy on each part."""
    network.eval()
    hits = [torch.cat([network(some) for some in x.split(500)]).argmax(1) == y for x, y in parts]
    return [float(hit.float().mean()) for hit in hits]


class Trained(NamedTuple):
    """What is merged, and the curvatures of the base and the experts, by kind."""

    parts: Parts
    base: nn.Module
    experts: list[nn.Module]
    memory: Data | None
    curvature: dict[str, list[Any]]


MEASURES = {"diagonal": ggn_diagonal, "kronecker": kronecker_curvature}


def trained(problem: str, seed: int, kinds: Sequence[str]) -> Trained:
    """Trains the base and the experts, and measures their curvature."""
    setting = PROBLEMS[problem]
    parts = parts_of(setting, seed)
    torch.manual_seed(seed)
    base = train(setting.network(), *parts.base, seed)
    experts = [train(copy.deepcopy(base), x, y, seed + 1 + t) for t, (x, y) in enumerate(parts.train)]
    every = zip((base, *experts), (parts.base, *parts.train), strict=True)
    networks = [(network, x) for network, (x, _) in every]
    curvature = {kind: [measured(kind, network, x, seed) for network, x in networks] for kind in kinds}
    memory = parts.memory if problem.startswith("class groups") else None
    return Trained(parts, base, experts, memory, curvature)


def measured(kind: str, network: nn.Module, x: Tensor, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return MEASURES[kind](network, x, torch.ones(len(x)), pairs=PAIRS, generator=generator)


def run(problem: str, seed: int) -> dict[str, Any]:
    """Trains, merges by every method and setting, and evaluates what is best on the validation part."""
    known = trained(problem, seed, list(MEASURES))
    parts = known.parts
    every = [torch.cat([pair[i] for pair in (parts.base, *parts.train)]) for i in (0, 1)]
    joint = train(copy.deepcopy(known.base), *every, seed)
    results = {name: shown(n, parts, known.memory) for name, n in (("base", known.base), ("joint", joint))}
    own = zip(known.experts, parts.test, strict=True)
    results["experts, each on its own part"] = {"test": statistics.mean(accuracies(e, [p])[0] for e, p in own)}
    for name, (method, kind, settings) in METHODS.items():
        results[name] = best(known, method, kind and known.curvature[kind], settings)
        print(f"{problem}, seed {seed}, {name}: {results[name]}", flush=True)
    return results


def run_again(problem: str, seed: int) -> dict[str, Any]:
    """Merges, measures the input factors again on the experts' data, in the merged network, and merges again."""
    known = trained(problem, seed, ["kronecker"])
    first, *own = known.curvature["kronecker"]
    results = {}
    for name, (method, options) in AGAIN.items():
        given = {} if method == "regmean" else {"base_curvature": first}
        merged = merge(known.base, known.experts, method=method, curvatures=own, **given, **options)
        there = [measured("kronecker", merged, x, seed) for x, _ in known.parts.train]
        mixed = [with_inputs(h, again) for h, again in zip(own, there, strict=True)]
        results[f"{name}{TWICE}"] = best(known, method, [first, *mixed], METHODS[name][2])
        print(f"{problem}, seed {seed}, {name}{TWICE}: {results[f'{name}{TWICE}']}", flush=True)
    return results


def with_inputs(h: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """The output factors of a curvature, and the input factors of another."""
    return {name: replace(factors, inputs=again[name].inputs) for name, factors in h.items()}


def best(known: Trained, method: str, curvature: list[Any] | None, settings: list[dict[str, float]]) -> dict[str, Any]:
    """What the setting of the highest accuracy on the validation part gives."""
    given = {} if curvature is None else {"curvatures": curvature[1:], "base_curvature": curvature[0]}
    merged = [merge(known.base, known.experts, method=method, **given, **options) for options in settings]
    worth = [statistics.mean(accuracies(network, known.parts.validation)) for network in merged]
    first = worth.index(max(worth))
    result = {"setting": settings[first], **shown(merged[first], known.parts, None)}
    if known.memory is not None:  # what is best may be another one once the head is fitted again
        again = (refitted_result(network, known.parts, known.memory) for network in merged)
        result["refitted"] = max(again, key=lambda r: r["validation"])
    return result


def shown(network: nn.Module, parts: Parts, memory: Data | None) -> dict[str, Any]:
    """What is measured of a network."""
    test = accuracies(network, parts.test)
    more = {} if memory is None else {"refitted": refitted_result(network, parts, memory)}
    return {"test": statistics.mean(test), "parts": test, **more}


def refitted_result(network: nn.Module, parts: Parts, memory: Data) -> dict[str, float]:
    """Accuracy after the head was fitted again, held as strongly as is best on the validation part."""
    tried = [refitted(network, memory, pull) for pull in PULLS]
    worth = [statistics.mean(accuracies(one, parts.validation)) for one in tried]
    best = worth.index(max(worth))
    return {
        "validation": worth[best],
        "test": statistics.mean(accuracies(tried[best], parts.test)),
        "pull": PULLS[best],
    }


def cells(problem: str, seed: int) -> list[Cell]:
    """The runs of a problem: by curvature measured once, and with the input factors of a first merge."""
    arguments = {"problem": problem, "seed": seed}
    return [
        Cell(f"{problem}{more}, seed {seed}", {"learn": f"merging.{name}", "arguments": arguments})
        for name, more in (("run", ""), ("run_again", TWICE))
    ]


MERGES = [*METHODS, *(name + TWICE for name in AGAIN)]


# ---- What is shown -----------------------------------------------------------------------------------------


def columns(runs: Mapping[str, list[list[Run]]]) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """For each problem, and once more for refitted heads, the accuracy of each method with every seed."""
    for problem, made in runs.items():
        results = [dict(item for run in of_seed for item in (run.results or {}).items()) for of_seed in made if of_seed]
        names = [name for name in results[0] if all(name in r for r in results)] if results else []
        if names:
            yield problem, {name: [r[name]["test"] for r in results] for name in names}
        if again := [name for name in names if "refitted" in results[0][name]]:
            title = f"{problem}, head fitted again"
            yield title, {name: [r[name]["refitted"]["test"] for r in results] for name in again}


def table(runs: Mapping[str, list[list[Run]]]) -> None:
    """Prints mean and standard deviation over the seeds, and how often ours is ahead."""
    for title, accuracy in columns(runs):
        n, ours = len(accuracy["base"]), OURS if OURS in accuracy else "gradient matching, Kronecker"
        print(f"\n{title}, {n} seed{'s' * (n > 1)}\n\n| | accuracy | each seed | {ours} ahead in |\n|---|---|---|---|")
        for name, values in accuracy.items():
            spread = f" ± {statistics.stdev(values):.3f}" if n > 1 else ""
            differences = [mine - other for mine, other in zip(accuracy[ours], values, strict=True)]
            ahead = f"{sum(d > 0 for d in differences)} of {n}, p = {sign_flip_p(differences):.3f}"
            each = " ".join(f"{value:.3f}" for value in values)
            mean = f"{statistics.mean(values):.3f}{spread}"
            print(f"| {name} | {mean} | {each} | {ahead if name in MERGES and name != ours else ''} |")
    print(f"\nmade by {made_by(run for made in runs.values() for of_seed in made for run in of_seed)}")


def figure(runs: Mapping[str, list[list[Run]]], path: Path) -> None:
    """Draws every run of every method, a panel for each problem."""
    from matplotlib.figure import Figure

    panels = list(columns(runs))
    drawn = Figure((4.2 * len(panels) + 2, 3.4), layout="constrained")
    axes = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    names = MERGES
    for ax, (title, accuracy) in zip(axes, panels, strict=True):
        for row, name in enumerate(names):
            if name not in accuracy:
                continue
            color = "tab:red" if name.startswith("gradient matching, Kronecker") else "tab:blue"
            ax.plot(accuracy[name], [row] * len(accuracy[name]), "o", color=color, alpha=0.5)
            ax.plot(statistics.mean(accuracy[name]), row, "|", color=color, markersize=18, markeredgewidth=2)
        for name, style in (("base", ":"), ("joint", "--")):
            ax.axvline(statistics.mean(accuracy[name]), color="black", linestyle=style, label=name)
        ax.set(title=title, xlabel="accuracy on the experts' parts", xlim=(0, 1))
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].legend(loc="lower left")
    drawn.savefig(path, dpi=110)


# ---- Memory ------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from bayesdual.merging import merge_files
def mebibytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))
before, start = mebibytes("VmRSS"), time.perf_counter()
base, *models, output, method = sys.argv[1:]
merge_files(base, models, output, method=method)
print(before, mebibytes("VmHWM"), time.perf_counter() - start)
"""


def large_model(seed: int) -> dict[str, Tensor]:
    """124 million parameters, in the shapes of a small language model."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embedding.weight": (50_257, 768)}
    for layer in range(12):
        shapes |= {f"layers.{layer}.{name}.weight": (768, 768) for name in ("query", "key", "value", "output")}
        shapes |= {f"layers.{layer}.up.weight": (3072, 768), f"layers.{layer}.down.weight": (768, 3072)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def memory() -> None:
    """Prints the peak memory of merging five large models, by method."""
    from safetensors.torch import save_file

    from bayesdual.posterior import Posterior

    with tempfile.TemporaryDirectory() as folder:
        for seed in range(6):
            model = large_model(seed)
            save_file(model, Path(folder) / f"plain{seed}.safetensors")
            Posterior(model, {n: v.abs() for n, v in model.items()}, 1.0).save(Path(folder) / f"post{seed}.safetensors")
            print(f"written: model {seed + 1} of 6", flush=True)
        largest = max(v.numel() * v.element_size() for v in model.values()) / 2**20
        parameters = sum(v.numel() for v in model.values())
        del model
        print(f"\n5 models of {parameters / 1e6:.0f} M parameters in float32; largest tensor {largest:.0f} MiB\n")
        print("| method | MiB above the start | in largest tensors | MiB in all | seconds |\n|---|---|---|---|---|")
        for method in ("average", "task_arithmetic", "ties", "fisher", "gradient_matching"):
            kind = "post" if method in ("fisher", "gradient_matching") else "plain"
            paths = [str(Path(folder) / f"{kind}{seed}.safetensors") for seed in range(6)]
            done = subprocess.run(
                [sys.executable, "-c", CHILD, *paths, str(Path(folder) / f"out-{method}"), method],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            before, peak, seconds = map(float, done.stdout.split())
            more = peak - before
            print(f"| {method} | {more:.0f} | {more / largest:.1f} | {peak:.0f} | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/merging.jsonl"))
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--figure", type=Path, help="draw the results into this file")
    parser.add_argument("--memory", action="store_true", help="measure memory alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        memory()
        return
    store = Store(args.results)
    plan = {problem: [cells(problem, seed) for seed in args.seeds] for problem in args.problems}
    if args.table:
        latest = store.latest()
        runs = {p: [[latest[c.title] for c in own if c.title in latest] for own in made] for p, made in plan.items()}
    else:
        runs = {problem: [[store.make(one) for one in own] for own in made] for problem, made in plan.items()}
        print(store.left_aside(c for made in plan.values() for own in made for c in own) or "")
    table(runs)
    if args.figure:
        figure(runs, args.figure)


if __name__ == "__main__":
    main()
