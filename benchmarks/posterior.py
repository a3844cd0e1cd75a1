"""How true the posterior of all data seen is, and what its predictions are worth.

    python benchmarks/posterior.py --seeds 3 4 5 [--streams fmnist digits cnn]

A stream is learned, with the settings of its configuration and a tenth of the training data set aside. Then

- the measured curvature is compared, parameter by parameter, with the exact diagonal of the GGN on a sample of all
  past examples, at the same weights: rank correlation, and median of the ratios;
- the test data are predicted by the mean, by the mean with one temperature (fitted on the data set aside, which the
  others do not see), by samples of the last layer, and by the variance of its logits: accuracy, NLL and ECE.

The prior precision of the posterior is that of the package. It was chosen on seeds 0, 1 and 2.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from scipy.stats import spearmanr
from torch import Tensor, nn

from bayesdual.algorithm import BayesDual
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.measures import StreamMetric
from bayesdual.models import CNN, MLP
from bayesdual.posterior import exact_ggn_diagonal
from bayesdual.prediction import fit_temperature, prediction_by
from bayesdual.scenarios import SplitDigits, SplitFMNIST
from bayesdual.stream import normalise

SAMPLE = 4000  # past examples of the exact curvature
BATCH = 500


class Stream(NamedTuple):
    """What is learned, and how; as in the configuration of its name."""

    benchmark: Callable[..., Any]
    network: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    algorithm: Callable[[], BayesDual]


STREAMS = {
    "fmnist": Stream(SplitFMNIST, lambda: MLP(784, (256, 256), 10), 1, 64, lambda: BayesDual(200)),
    "digits": Stream(
        SplitDigits, lambda: MLP(64, (256, 256), 10), 50, 32, lambda: BayesDual(100, replay_batch_size=128)
    ),
    "cnn": Stream(SplitFMNIST, CNN, 1, 64, lambda: BayesDual(200)),
}


def learned(stream: Stream, seed: int) -> tuple[Learner, Any]:
    """A learner that has learned the stream, and the stream."""
    torch.manual_seed(seed)
    benchmark = stream.benchmark(validation=0.1)
    learner = Learner(stream.network(), stream.algorithm())
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(learner, StreamDataModule(benchmark, stream.epochs, stream.batch_size))
    return learner.eval(), benchmark


def exact_diagonal(network: nn.Module, x: Tensor, weight: float) -> dict[str, Tensor]:
    """weight times the sum of diag(J^T Lambda J) over inputs (N, ...): over all labels that may be given, not drawn."""
    total: dict[str, Tensor] = {}
    for part in x.split(BATCH):
        for name, value in exact_ggn_diagonal(network, part).items():
            total[name] = total.get(name, 0) + weight * value
    return total


def fidelity(learner: Learner, train: Sequence[Any], seed: int) -> dict[str, tuple[float, float]]:
    """By parameter: rank correlation of the measured curvature with the exact one, and the median of their ratios."""
    data = [experience.tensors() for experience in train]
    x = torch.cat([d.x for d in data])
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
    exact = exact_diagonal(learner.network, normalise(x[rows], data[0].mean, data[0].std), len(x) / len(rows))
    measured = learner.algorithm.posterior.curvature
    result = {}
    for name, h in exact.items():
        known = h > 0
        ratio = float((measured[name][known] / h[known]).median())
        result[name] = float(spearmanr(measured[name].flatten(), h.flatten()).statistic), ratio
    return result


def evaluate(p: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Accuracy, NLL and ECE."""
    metric = StreamMetric(1)
    metric.update(p, y, 0)
    result = metric.compute()
    return result["accuracy"][0], result["nll"], result["ece"]


@torch.no_grad()
def in_batches(predict: Callable[[Tensor, Tensor], Tensor], stream: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """What is said of all inputs of a stream, and their labels."""
    data = [experience.tensors() for experience in stream]
    said = [predict(x, t) for d in data for x, t in zip(d.x.split(BATCH), d.tasks.split(BATCH), strict=True)]
    return torch.cat(said), torch.cat([d.y for d in data])


def predictions(learner: Learner, benchmark: Any) -> dict[str, tuple[float, float, float]]:
    """Accuracy, NLL and ECE of the test stream by each way to predict."""
    valid, test = in_batches(learner, benchmark.valid_stream), in_batches(learner, benchmark.test_stream)
    result = {
        "mean": evaluate(test[0].softmax(1), test[1]),
        "mean + temperature": evaluate((test[0] / fit_temperature(*valid)).softmax(1), test[1]),
    }
    posterior = learner.algorithm.posterior
    for name in ("samples", "linearised"):
        by = prediction_by(name)
        p, y = in_batches(lambda x, t, by=by: by(learner.network, learner, posterior, x, t), benchmark.test_stream)
        result[name] = evaluate(p, y)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=list(STREAMS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for stream in args.streams:
        layers, ways, seconds = defaultdict(list), defaultdict(list), []
        for seed in args.seeds:
            learner, benchmark = learned(STREAMS[stream], seed)
            spent = learner.history.seconds
            seconds.append(spent["memory"] / (spent["total"] - spent["evaluation"]))
            start = time.perf_counter()
            for name, values in fidelity(learner, benchmark.train_stream, seed).items():
                layers[name].append(values)
            for name, values in predictions(learner, benchmark).items():
                ways[name].append(values)
            print(f"{stream}, seed {seed}: looked at in {time.perf_counter() - start:.0f} s", flush=True)
        print(f"\n{stream}: share of the training time spent on memory and posterior {statistics.mean(seconds):.3f}")
        print("| parameter | rank correlation | median ratio |\n|---|---|---|")
        for name, runs in layers.items():
            rho, ratio = zip(*runs, strict=True)
            print(f"| `{name}` | {spread(rho, 3)} | {spread(ratio, 2)} |")
        print("\n| prediction | accuracy | NLL | ECE |\n|---|---|---|---|")
        for name, runs in ways.items():
            print(f"| {name} | " + " | ".join(spread(values, 4) for values in zip(*runs, strict=True)) + " |")
        print(flush=True)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    main()
