"""Gap closure: how far ours goes from the best tuned peer to joint training, on class-incremental Split Fashion-MNIST.

    python benchmarks/gap_closure.py --results benchmarks/results/gap_closure.jsonl [--tune] [--table]

Five experiences of two classes in order, an MLP 784-256-256-10, batch 64; columns are (epochs, memory). Ours is what
``configs/split_fmnist.yaml`` says, by the Lightning host; the peers are Avalanche's, on the same model and data. Only
the learning rate may differ between columns: with ``--tune`` all of a method's grid is run with seed 0 on 90% of the
training data, and what is best on the other 10% is taken. Where that was not done, ``ASSUMED`` is taken and marked
with a star. Then the seeds run on all training data; what counts is the average accuracy on the whole test stream
after the last experience.

    G = (ours - best peer) / (joint - best peer)

Every run is appended to the results file, and a run that stands there is not made again. ``--table`` runs nothing.
"""

from __future__ import annotations

import argparse
import json
import pydoc
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml

CONFIG = "configs/split_fmnist.yaml"
REPLAY_BATCH = 128
COLUMNS = {"1/200": (1, 200), "1/500": (1, 500), "5/200": (5, 200), "5/500": (5, 500)}
OURS, JOINT = "bayesdual", "joint"
PEERS = ("Replay", "DER++", "ER-ACE", "GDumb")
GDUMB_EPOCHS = 30  # on its memory, after the stream
VALIDATION = 0.1
OUR_GRID, PEER_GRID = (0.05, 0.1, 0.2), (1e-3, 3e-4, 1e-4)
ASSUMED = {
    OURS: {"1/200": 0.2, "1/500": 0.2, "5/200": 0.05, "5/500": 0.05},
    "Replay": {"1/200": 1e-4, "1/500": 3e-4, "5/200": 1e-4, "5/500": 1e-4},
    "DER++": {"1/200": 3e-4, "1/500": 1e-3, "5/200": 1e-4, "5/500": 1e-4},
    "ER-ACE": {"1/200": 1e-4, "1/500": 3e-4, "5/200": 3e-4, "5/500": 1e-3},
    "GDumb": dict.fromkeys(COLUMNS, 1e-3),
    JOINT: dict.fromkeys(COLUMNS, 1e-3),
}

# ----------------------------------------------------------------------- results on disk


class Runs:
    """Runs and their results, one JSON line each: a benchmark that was stopped goes on where it was.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known = {self._key(line["run"]): line["results"] for line in map(json.loads, lines)}

    def get(self, run: dict[str, Any]) -> dict[str, Any] | None:
        """The results of a run, or None if it was not made."""
        return self._known.get(self._key(run))

    def make(self, run: dict[str, Any], function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The results of a run, which ``function`` gives if they are not there."""
        if (known := self.get(run)) is not None:
            return known
        results = function()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"run": run, "results": results}) + "\n")
        self._known[self._key(run)] = results
        print(f"{describe(run)}: {results['accuracy']:.4f} in {results['seconds']:.0f} s", flush=True)
        return results

    @staticmethod
    def _key(run: dict[str, Any]) -> str:
        return json.dumps(run, sort_keys=True)


def describe(run: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value}" for name, value in run.items())


def mean_and_sd(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}" if values else "-"


# ----------------------------------------------------------------------- ours


def read_config(path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration with some settings changed, named by their dotted paths."""
    config = yaml.safe_load(Path(path).read_text())
    for name, value in settings.items():
        *above, last = name.split(".")
        place = config
        for key in above:
            place = place[key]
        place[last] = value
    return config


def build(spec: Any, **more: Any) -> Any:
    """What a value of a configuration stands for: an object of a class_path, a function of this package, or itself."""
    if isinstance(spec, dict) and "class_path" in spec:
        arguments = {name: build(value) for name, value in spec.get("init_args", {}).items()}
        return pydoc.locate(spec["class_path"])(**arguments, **more)
    return pydoc.locate(spec) if isinstance(spec, str) and spec.startswith("bayesdual.") else spec


@lru_cache(maxsize=1)
def build_benchmark(spec: str, validation: float) -> Any:
    """The benchmark of a configuration's ``data.benchmark``, as JSON; read once for all runs."""
    return build(json.loads(spec), validation=validation)


def learn(config: dict[str, Any], seed: int, evaluate_on: str = "test") -> dict[str, Any]:
    """Learns the stream of a configuration by the Lightning host, without writing anything.

    Args:
        config: As in ``configs/``.
        seed: Seed of all that is random.
        evaluate_on: "test" learns from all training data; "valid" from 90%, and evaluates on the rest.
    """
    from lightning import Trainer, seed_everything

    from bayesdual.data import StreamDataModule
    from bayesdual.learner import Learner

    validation = VALIDATION if evaluate_on == "valid" else 0.0
    benchmark = build_benchmark(json.dumps(config["data"]["benchmark"]), validation)
    seed_everything(seed, verbose=False)
    model = config["model"]
    optimizer = partial(pydoc.locate(model["optimizer"]["class_path"]), **model["optimizer"]["init_args"])
    learner = Learner(build(model["network"]), build(model["algorithm"]), optimizer, model["lr_end"])
    data = StreamDataModule(benchmark, config["data"]["epochs"], config["data"]["batch_size"], evaluate_on)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, datamodule=data)
    results = learner.history.results()
    return {
        "accuracy": results["average_accuracy"],
        "by_experience": results["accuracy_matrix"][-1],
        "forgetting": results["forgetting"],
        "nll": results["nll"],
        "ece": results["ece"],
        "seconds": results["seconds_total"],
        "seconds_memory": results["seconds_memory"],
    }


# ----------------------------------------------------------------------- the peers


def learn_peer(
    method: str, benchmark: Any, epochs: int, memory: int, lr: float, seed: int, evaluate_on: str
) -> dict[str, Any]:
    """Learns the same stream by a strategy of Avalanche, from float tensors normalised beforehand, its fastest way."""
    import avalanche.training as strategies
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.training.plugins import EvaluationPlugin

    from bayesdual.models import MLP
    from bayesdual.scenarios.data import normalise

    def tensors(stream: Iterable[Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(normalise(d.x, d.mean, d.std), d.y) for d in (experience.tensors() for experience in stream)]

    train, evaluation = tensors(benchmark.train_stream), tensors(getattr(benchmark, f"{evaluate_on}_stream"))
    if method == JOINT:
        train = [tuple(torch.cat(part) for part in zip(*train, strict=True))]
    torch.manual_seed(seed)
    model = MLP(784, (256, 256), 10)
    kinds = {
        JOINT: strategies.Naive,
        "Replay": partial(strategies.Replay, mem_size=memory),
        "DER++": partial(strategies.DER, mem_size=memory, batch_size_mem=64, beta=0.5),
        "ER-ACE": partial(strategies.ER_ACE, mem_size=memory, batch_size_mem=64),
        "GDumb": partial(strategies.GDumb, mem_size=memory),
    }
    strategy = kinds[method](
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=64,
        train_epochs=epochs,
        evaluator=EvaluationPlugin(),
    )
    labels = [0] * len(train)
    stream = tensors_benchmark(train_tensors=train, test_tensors=train[:1], task_labels=labels).train_stream
    start = time.perf_counter()
    for experience in stream:
        strategy.train(experience)
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        accuracies = [float((model(x).argmax(1) == y).float().mean()) for x, y in evaluation]
    return {"accuracy": statistics.mean(accuracies), "by_experience": accuracies, "seconds": seconds}


# ----------------------------------------------------------------------- the runs of the table


def make_run(runs: Runs, method: str, column: str, lr: float, seed: int, evaluate_on: str) -> dict[str, Any]:
    """One run of the table, by whichever host its method has."""
    run = key_of(method, column, lr, seed, evaluate_on)
    if method == OURS:
        settings = {
            "data.epochs": run["epochs"],
            "model.algorithm.init_args.memory_size": run["memory"],
            "model.algorithm.init_args.replay_batch_size": REPLAY_BATCH,
            "model.optimizer.init_args.lr": lr,
        }
        return runs.make(run, lambda: learn(read_config(CONFIG, settings), seed, evaluate_on))
    spec = read_config(CONFIG, {})["data"]["benchmark"]
    benchmark = build_benchmark(json.dumps(spec), VALIDATION if evaluate_on == "valid" else 0.0)
    return runs.make(run, lambda: learn_peer(method, benchmark, run["epochs"], run["memory"], lr, seed, evaluate_on))


def key_of(method: str, column: str, lr: float, seed: int, evaluate_on: str) -> dict[str, Any]:
    """What names a run in the results file; columns share a run where they do not differ for a method."""
    epochs, memory = COLUMNS[column]
    if method == "GDumb":
        epochs = GDUMB_EPOCHS
    if method == JOINT:
        memory = 0
    run = {"method": method, "epochs": epochs, "memory": memory, "lr": lr, "seed": seed}
    return run | {"evaluate_on": evaluate_on}


def grid(method: str) -> tuple[float, ...]:
    return OUR_GRID if method == OURS else PEER_GRID


def learning_rate(runs: Runs, method: str, column: str) -> tuple[float, bool]:
    """The learning rate that is best on the validation stream, and True; where not all were tried, the assumed one."""
    tried = {lr: runs.get(key_of(method, column, lr, 0, "valid")) for lr in grid(method)}
    if None in tried.values():
        return ASSUMED[method][column], False
    return max(tried, key=lambda lr: tried[lr]["accuracy"]), True


def table(runs: Runs, seeds: list[int]) -> str:
    """Mean and standard deviation by method and column, and the gap closure."""
    lines = [f"{'':12s}" + "".join(f"{column:>26s}" for column in COLUMNS)]
    means: dict[str, dict[str, float]] = {column: {} for column in COLUMNS}
    for method in (JOINT, *PEERS, OURS):
        cells = []
        for column in COLUMNS:
            lr, tuned = learning_rate(runs, method, column)
            made = [runs.get(key_of(method, column, lr, seed, "test")) for seed in seeds]
            values = [results["accuracy"] for results in made if results is not None]
            few = "" if len(values) in (0, len(seeds)) else f" [{len(values)}]"
            cells.append(f"{mean_and_sd(values)}{few} ({lr:g}{'' if tuned else '*'})" if values else "-")
            if values:
                means[column][method] = statistics.mean(values)
        lines.append(f"{method:12s}" + "".join(f"{cell:>26s}" for cell in cells))
    closed = [closure(means[column]) for column in COLUMNS]
    lines.append(f"{'gap closure':12s}" + "".join(f"{'-' if g is None else f'{g:.2f}':>26s}" for g in closed))
    lines.append("in brackets: [runs, if fewer than the seeds] (learning rate; * not tuned here)")
    return "\n".join(lines)


def closure(means: dict[str, float]) -> float | None:
    """G of a column, or None while one of the three is missing."""
    peers = [means[name] for name in PEERS if name in means]
    if not peers or OURS not in means or JOINT not in means:
        return None
    return (means[OURS] - max(peers)) / (means[JOINT] - max(peers))


def draw(runs: Runs, seeds: list[int], path: Path) -> None:
    """A figure of the table: every run a dot, every mean a bar."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.2), layout="constrained")
    for axes, column in zip(figure.subplots(1, len(COLUMNS), sharey=True), COLUMNS, strict=True):
        for place, method in enumerate((*PEERS, OURS, JOINT)):
            lr, _ = learning_rate(runs, method, column)
            made = [runs.get(key_of(method, column, lr, seed, "test")) for seed in seeds]
            values = [results["accuracy"] for results in made if results is not None]
            if values:
                colour = {OURS: "tab:orange", JOINT: "tab:gray"}.get(method, "tab:blue")
                axes.bar(place, statistics.mean(values), color=colour, alpha=0.6)
                axes.plot([place] * len(values), values, ".", color="black", markersize=4)
        axes.set_xticks(range(len(PEERS) + 2), (*PEERS, OURS, JOINT), rotation=60, ha="right")
        axes.set_title("epochs/memory " + column, fontsize=10)
        axes.set_ylim(0.65, 0.9)
        axes.grid(axis="y", alpha=0.3)
    figure.supylabel("final average accuracy", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    methods = (OURS, JOINT, *PEERS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="file of results, one JSON line a run")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS), metavar="EPOCHS/MEMORY")
    parser.add_argument("--methods", nargs="+", choices=methods, default=list(methods), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tune", action="store_true", help="choose learning rates on the validation stream first")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads, on both sides")
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    parser.add_argument("--figure", type=Path, help="draw the table to this PNG")
    args = parser.parse_args()
    quiet(args.threads)
    runs = Runs(args.results)
    for column in [] if args.table else args.columns:
        for method in args.methods:
            if args.tune:
                for lr in grid(method):
                    make_run(runs, method, column, lr, 0, "valid")
            lr, _ = learning_rate(runs, method, column)
            for seed in args.seeds:
                make_run(runs, method, column, lr, seed, "test")
    print(table(runs, args.seeds))
    if args.figure:
        draw(runs, args.seeds, args.figure)


def quiet(threads: int) -> None:
    """Sets PyTorch's threads, and silences what Lightning and Avalanche say of every run."""
    import logging

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
