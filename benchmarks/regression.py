"""A stream of numbers with and without a memory: the demand for electricity, Elec2 in ten parts of time.

    python benchmarks/regression.py --seeds 0 1 2

Prints RMSE over all ten parts after the last (of targets between 0 and 1), what it rose by since it was lowest, R2 and
NLL, of ours, of replay and of no memory (configs/methods), for a memory of 200 and of 50. Settings of IVON are by the
rule: nothing is tuned.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings

import torch

from bayesdual.comparison.ours import learn
from bayesdual.configuration import Setting, find_configs, resolve

METHODS = {"bayesdual": [], "replay": ["methods/replay.yaml"], "naive": ["methods/naive.yaml"]}
SHOWN = ("average_rmse", "forgetting", "r2", "nll")


def results(overlay: list[str], memory: int, seed: int) -> dict[str, float]:
    """What a run comes to."""
    files = find_configs([word for name in ("elec2_demand.yaml", *overlay) for word in ("--config", name)])[1::2]
    size = [] if "methods/naive.yaml" in overlay else [Setting("model.algorithm.init_args.memory_size", memory, "")]
    return learn(resolve(*files, *size, Setting("seed_everything", seed, "")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--memories", type=int, nargs="+", default=[200, 50])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.set_num_threads(1)
    print(f"{'method':<12}{'memory':>7}" + "".join(f"{name:>20}" for name in SHOWN) + f"   seeds {args.seeds}")
    for method, overlay in METHODS.items():
        for memory in args.memories if method != "naive" else [0]:
            runs = [results(overlay, memory, seed) for seed in args.seeds]
            cells = []
            for name in SHOWN:
                values = [run[name] for run in runs]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"{f'{statistics.mean(values):.4f} ± {spread:.4f}':>20}")
            print(f"{method:<12}{memory:>7}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
