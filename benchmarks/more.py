"""What it costs not to know the end of a stream at its start: Split Digits, the last two classes learned later.

    python benchmarks/more.py --seeds 0 1 2

Prints the average accuracy over all five experiences after the last, memory 100, of: all five known at the start; four
learned, then one, with a head that was wide enough; and with a head of eight classes that grows. Settings of IVON are
by the rule.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from lightning import Trainer, seed_everything

from bayesdual import BayesDual, Learner, StreamDataModule
from bayesdual.models import MLP
from bayesdual.scenarios import SplitDigits

WAYS: dict[str, tuple[int, Sequence[Sequence[int]]]] = {
    "known at the start": (10, [range(5)]),
    "four, then one": (10, [range(4), [4]]),
    "four, then one, head grows": (8, [range(4), [4]]),
}


def digits(places: Sequence[int]) -> SimpleNamespace:
    """Some of the experiences of Split Digits."""
    whole = SplitDigits()
    streams = {name: list(getattr(whole, name)) for name in ("train_stream", "test_stream")}
    return SimpleNamespace(**{name: [stream[i] for i in places] for name, stream in streams.items()})


def accuracy(n_classes: int, parts: Sequence[Sequence[int]], seed: int, epochs: int) -> float:
    """Average accuracy after the last experience, each of the parts learned by a ``Trainer.fit`` of its own."""
    seed_everything(seed, verbose=False)
    learner = Learner(MLP(64, n_classes=n_classes), BayesDual(memory_size=100, replay_batch_size=128))
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    for places in parts:
        trainer = Trainer(accelerator="cpu", max_epochs=-1, **dict.fromkeys(quiet, False))
        trainer.fit(learner, StreamDataModule(digits(places), epochs=epochs, batch_size=32))
    return learner.history.results()["average_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.set_num_threads(1)
    for name, (n_classes, parts) in WAYS.items():
        values = [accuracy(n_classes, parts, seed, args.epochs) for seed in args.seeds]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        each = " ".join(f"{value:.4f}" for value in values)
        print(f"{name:<28}{statistics.mean(values):.4f} ± {spread:.4f}   seeds {args.seeds}: {each}", flush=True)


if __name__ == "__main__":
    main()
