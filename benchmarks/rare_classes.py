"""What counts the same, examples or classes: Split Digits with 90 examples of each even digit and 5 of each odd one.

    python benchmarks/rare_classes.py --seeds 0 1 2

Prints the accuracy on the frequent and on the rare digits of the test data after the last of five experiences (two
digits each), and their mean, of ours with ``equal`` examples and classes, and of replay of labels with each. Memory 50,
settings of IVON by the rule: nothing is tuned.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from typing import Any, Literal

import torch
from lightning import Trainer, seed_everything
from sklearn.datasets import load_digits

from bayesdual import BayesDual, Learner, StreamDataModule
from bayesdual.memory import random_selection
from bayesdual.models import MLP
from bayesdual.scenarios import from_arrays

FREQUENT, RARE, TEST = 90, 5, 60
METHODS: dict[str, dict[str, Any]] = {
    "bayesdual": {},
    "replay": {"label_share": 1.0, "selection": random_selection, "condensation": None, "weight_prior": None},
}


def accuracies(equal: Literal["examples", "classes"], settings: dict[str, Any], seed: int) -> tuple[float, float]:
    """Accuracy on the frequent and on the rare digits."""
    seed_everything(seed, verbose=False)
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y))
    rows, is_test = [], []
    for c in range(10):
        mine = order[torch.from_numpy(y)[order] == c][: TEST + (RARE if c % 2 else FREQUENT)]
        rows.append(mine)
        is_test.append(torch.arange(len(mine)) < TEST)
    rows_, test = torch.cat(rows).numpy(), torch.cat(is_test).numpy()
    benchmark = from_arrays(x[rows_], y[rows_], n_experiences=5, test=test)
    learner = Learner(MLP(64, (100, 100), 10), BayesDual(50, equal=equal, **settings))
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    Trainer(accelerator="cpu", **dict.fromkeys(quiet, False)).fit(learner, StreamDataModule(benchmark, 20, 16))
    evaluation = learner.latest_evaluation
    assert evaluation is not None and "confusion" in evaluation
    right = torch.tensor(evaluation["confusion"]).double().diagonal() / TEST
    return float(right[::2].mean()), float(right[1::2].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.set_num_threads(1)
    print(f"{'method':<12}{'equal':<10}{'frequent':>16}{'rare':>16}{'mean':>16}   seeds {args.seeds}")
    for method, settings in METHODS.items():
        for equal in ("examples", "classes"):
            runs = [accuracies(equal, settings, seed) for seed in args.seeds]
            columns = [[run[0] for run in runs], [run[1] for run in runs], [sum(run) / 2 for run in runs]]
            cells = [
                f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.3f}"
                for values in columns
            ]
            print(f"{method:<12}{equal:<10}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
