"""Seconds of a whole run, ours against Avalanche's Replay: same model, batch, epochs, memory and evaluation.

    python benchmarks/whole_run.py [--repeats 5]

Split Fashion-MNIST, memory 200, one epoch, batch 64, evaluation of all test experiences after each experience. Both
run in turn, each in a process of its own; imports and the reading of files are not counted on either side. Neither
writes anything for TensorBoard (benchmarks/inspection_cost.py measures what that takes). The peer
reads from float tensors that are normalised beforehand, its fastest way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from typing import Any

from seeds import fit

CONFIG = "configs/split_fmnist.yaml"
QUIET = ("--trainer.logger", "false")


def float_tensors(stream: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Inputs of each experience, normalised, and labels: the fastest that Avalanche's loaders can be given."""
    from bayesdual.stream import normalise

    data = [experience.tensors() for experience in stream]
    return [(normalise(d.x, d.mean, d.std), d.y) for d in data]


def peer(seed: int, threads: int) -> dict[str, float]:
    """Trains and evaluates Avalanche's Replay."""
    warnings.simplefilter("ignore")
    import torch
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training import Replay
    from avalanche.training.plugins import EvaluationPlugin

    from bayesdual.models import MLP
    from bayesdual.scenarios import SplitFMNIST

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    source = SplitFMNIST(n_experiences=5)
    train, test = float_tensors(source.train_stream), float_tensors(source.test_stream)
    benchmark = tensors_benchmark(train_tensors=train, test_tensors=test, task_labels=[0] * 5)
    model = MLP(784, (256, 256), 10)
    strategy = Replay(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        criterion=torch.nn.CrossEntropyLoss(),
        mem_size=200,
        train_mb_size=64,
        train_epochs=1,
        eval_mb_size=1000,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True)),
    )
    start = time.perf_counter()
    for experience in benchmark.train_stream:
        strategy.train(experience)
        last = strategy.eval(benchmark.test_stream)
    seconds = time.perf_counter() - start
    accuracies = [v for k, v in last.items() if k.startswith("Top1_Acc_Exp")]
    return {"seconds_total": seconds, "average_accuracy": statistics.mean(accuracies)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads, on both sides")
    parser.add_argument("--peer", type=int, metavar="SEED", help=argparse.SUPPRESS)  # the process of the other side
    args = parser.parse_args()
    if args.peer is not None:
        print(json.dumps(peer(args.peer, args.threads)))
        return
    sides: dict[str, list[dict]] = {"bayesdual": [], "Avalanche Replay": []}
    for seed in range(args.repeats):
        sides["bayesdual"].append(fit(["--config", CONFIG, "--threads", str(args.threads), *QUIET], seed))
        command = [sys.executable, __file__, "--peer", str(seed), "--threads", str(args.threads)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        sides["Avalanche Replay"].append(json.loads(output.splitlines()[-1]))
        print(
            f"pair {seed + 1} of {args.repeats}: "
            + ", ".join(f"{v[-1]['seconds_total']:.2f} s" for v in sides.values())
        )
    print(f"\n{'':18s} {'seconds (median)':>17s} {'min':>7s} {'max':>7s} {'accuracy':>9s}")
    for name, runs in sides.items():
        seconds = [run["seconds_total"] for run in runs]
        accuracy = statistics.mean(run["average_accuracy"] for run in runs)
        print(f"{name:18s} {statistics.median(seconds):17.2f} {min(seconds):7.2f} {max(seconds):7.2f} {accuracy:9.4f}")
    pairs = zip(*sides.values(), strict=True)
    ratio = statistics.median(ours["seconds_total"] / theirs["seconds_total"] for ours, theirs in pairs)
    print(f"ratio bayesdual / Avalanche Replay, median over pairs: {ratio:.2f}")


if __name__ == "__main__":
    main()
