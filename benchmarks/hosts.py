"""Seconds of training by each host: Lightning's, our Avalanche strategy, and Avalanche's Replay with AdamW.

    python benchmarks/hosts.py [--repeats 3]

Split Fashion-MNIST, memory 200, one epoch, batch 64, one thread, the same settings of ours in both hosts; without
evaluation. The sides run in turn, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings

from seeds import fit
from whole_run import CONFIG, float_tensors

HOST, OURS, PEER = "Lightning host", "our strategy", "Replay, AdamW"


def train(side: str, seed: int) -> dict[str, float]:
    """Trains by a strategy of Avalanche's kind."""
    warnings.simplefilter("ignore")
    import torch
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.training import Replay

    from bayesdual.algorithm import BayesDual
    from bayesdual.models import MLP
    from bayesdual.scenarios import SplitFMNIST
    from bayesdual.strategies import BayesDualStrategy

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    stream = SplitFMNIST(n_experiences=5)
    model = MLP(784, (256, 256), 10)
    common = {"model": model, "train_mb_size": 64, "train_epochs": 1, "evaluator": None}
    experiences = stream.train_stream
    if side == OURS:
        strategy = BayesDualStrategy(algorithm=BayesDual(memory_size=200), **common)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
        strategy = Replay(optimizer=optimizer, criterion=torch.nn.CrossEntropyLoss(), mem_size=200, **common)
        tensors = float_tensors(experiences)
        experiences = tensors_benchmark(tensors, tensors[:1], task_labels=[0] * 5).train_stream
    start = time.perf_counter()
    for experience in experiences:
        strategy.train(experience)
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).float().mean() for x, y in float_tensors(stream.test_stream)]
    return {"seconds": seconds, "accuracy": float(torch.stack(right).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)  # a process of its own
    args = parser.parse_args()
    if args.side:
        print(json.dumps(train(args.side[0], int(args.side[1]))))
        return
    sides: dict[str, list[dict[str, float]]] = {HOST: [], OURS: [], PEER: []}
    for seed in range(args.repeats):
        results = fit(["--config", CONFIG, "--threads", "1"], seed)
        seconds = results["seconds_training"] + results["seconds_memory"]
        sides[HOST].append({"seconds": seconds, "accuracy": results["average_accuracy"]})
        for side in (OURS, PEER):
            command = [sys.executable, __file__, "--side", side, str(seed)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            sides[side].append(json.loads(output.splitlines()[-1]))
        print(f"round {seed + 1} of {args.repeats}: " + ", ".join(f"{v[-1]['seconds']:.2f} s" for v in sides.values()))
    for name, runs in sides.items():
        accuracy = statistics.mean(run["accuracy"] for run in runs)
        print(f"{name:16s} median {statistics.median(r['seconds'] for r in runs):6.2f} s  accuracy {accuracy:.4f}")
    for other in (HOST, PEER):
        pairs = zip(sides[OURS], sides[other], strict=True)
        ratio = statistics.median(ours["seconds"] / theirs["seconds"] for ours, theirs in pairs)
        print(f"{OURS} / {other}: {ratio:.2f} (median over rounds)")


if __name__ == "__main__":
    main()
