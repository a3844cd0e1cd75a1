"""What part of IVON's step loses in short experiences and on heads: the same method, learned by other steps.

    python benchmarks/ivon_streams.py [--streams NAME ...] [--steps NAME ...] [--seeds 3 ...]

Streams of five experiences of two classes, ours with its defaults, a learning rate that falls to 0; validation data that
are left out of the training data, test data are not looked at. Printed are the accuracy on all classes at the end, that on
each experience when just learned, and NLL.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from suggest_problems import ResNet
from torch import Tensor, nn

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVON, IVONByRule
from bayesdual.measures import StreamMetric
from bayesdual.models import CNN, MLP, evaluating
from bayesdual.posterior import Posterior
from bayesdual.scenarios import RawDataset, cifar10, digits, fashion_mnist, split_benchmark
from bayesdual.schedule import lower_learning_rate
from bayesdual.stream import Inputs, TensorData

CANDIDATES, TESTED = 300, 400  # of a class for the memory, and validation examples of an experience
Make = Callable[[nn.Module, int, int], torch.optim.Optimizer]


class Unmeasured(BayesDual):
    """Without the posterior of all data, which nothing here asks for."""

    def measure_posterior(self, *args: Any, posterior: Posterior | None = None, **kwargs: Any) -> None:
        self.posterior = posterior


@dataclass(frozen=True)
class Stream:
    """What is learned, by what, and for how long; ``examples`` of an experience, None for all."""

    data: Callable[[], RawDataset]
    network: Callable[[], nn.Module]
    examples: int | None
    epochs: int
    batch: int
    memory: dict[str, Any] = field(default_factory=lambda: {"memory_size": 200})


@cache
def features() -> RawDataset:
    from bayesdual.models import EfficientNetLite
    from bayesdual.scenarios import SplitCIFAR10, features_of

    made = features_of(SplitCIFAR10, EfficientNetLite(variant=0, size=96), examples_per_class=1800)
    train, test = ([e.tensors() for e in stream] for stream in (made.train_stream, made.test_stream))
    (x, y), (test_x, test_y) = ((torch.cat([t.x for t in s]), torch.cat([t.y for t in s])) for s in (train, test))
    return RawDataset("features", x, y, test_x, test_y, 10, (), ())


FEATURES = {"memory_bytes": 200_000, "temperature": 1.0}
MLP_28 = partial(MLP, 784, (256, 256))
STREAMS = {
    "Digits, MLP": Stream(digits, partial(MLP, 64, (256, 256)), None, 50, 32, {"memory_size": 100, "replay_batch_size": 128}),
    "Fashion-MNIST, MLP": Stream(fashion_mnist, MLP_28, None, 1, 64),
    "Fashion-MNIST, MLP, 27 steps": Stream(fashion_mnist, MLP_28, 1728, 1, 64),
    "Fashion-MNIST, CNN": Stream(fashion_mnist, CNN, None, 1, 64),
    "Fashion-MNIST, CNN, 27 steps": Stream(fashion_mnist, CNN, 1728, 1, 64),
    "CIFAR-10, ResNet, 27 steps": Stream(cifar10, ResNet, 1728, 1, 64),
    "CIFAR-10, ResNet, 54 steps": Stream(cifar10, ResNet, 864, 4, 64),
    "CIFAR-10, features": Stream(features, partial(MLP, 1280, ()), None, 10, 64, FEATURES),
}


def adam(lr: float, **others: Any) -> Make:
    return lambda network, examples, steps: torch.optim.Adam(network.parameters(), lr=lr, **others)


def by_rule(factor: float = 1.0, **changed: Any) -> Make:
    """The rule's settings, some of them changed."""

    def make(network: nn.Module, examples: int, steps: int) -> IVON:
        made = IVONByRule(factor).make(network.parameters(), examples, steps)
        group = made.param_groups[0]
        settings = {n: group[n] for n in ("lr", "ess", "hess_init", "betas", "weight_decay")} | {"max_norm": made.max_norm}
        return IVON(network.parameters(), **settings | {n: v(settings) if callable(v) else v for n, v in changed.items()})

    return make


def by_matrix(step: float, noise: float = 1.0, by_steps: bool = False, **changed: Any) -> Make:
    """Steps of one length in each matrix, and the rule's noise times a factor."""

    def make(network: nn.Module, examples: int, steps: int) -> IVON:
        h, rms = 1e-3, 1e-5
        n = sum(p.numel() for p in network.parameters())
        length = step / math.sqrt(steps) if by_steps else step
        return IVON(
            network.parameters(), lr=length * h / rms, ess=n / (45 * h * noise), hess_init=h, max_rms=rms,
            rescale_lr=False, betas=(0.9, 0.9999), weight_decay=1e-6, **changed,
        )  # fmt: skip

    return make


STEPS: dict[str, Make] = {
    "Adam, 0.001": adam(1e-3),
    "Adam, 0.003": adam(3e-3),
    "Adam, 0.01": adam(1e-2),
    "Adam, 0.001, decay 0.01": adam(1e-3, weight_decay=0.01),
    "rule": by_rule(),
    "rule, decay 0.01": by_rule(weight_decay=0.01),
    "rule, four times the rate, decay 0.01": by_rule(4.0, weight_decay=0.01),
    "rule, without noise, decay 0.01": by_rule(ess=lambda s: 1e8 * s["ess"], weight_decay=0.01),
    "rule, without noise": by_rule(ess=lambda s: 1e8 * s["ess"]),
    "rule, no max_norm": by_rule(max_norm=math.inf),
    "rule, twice the rate": by_rule(2.0),
    "rule, four times the rate": by_rule(4.0),
    "rule, half the rate": by_rule(0.5),
    "rule, momentum .8": by_rule(betas=(0.8, 0.9999)),
    "rule, not debiased": by_rule(debias=False),
    "by matrix, 0.0003": by_matrix(3e-4),
    "by matrix, 0.001": by_matrix(1e-3),
    "by matrix, 0.003": by_matrix(3e-3),
    "by matrix, 0.01": by_matrix(1e-2),
    "rule, a tenth of the noise": by_rule(ess=lambda s: 10 * s["ess"]),
    "by matrix, by steps": by_matrix(0.05, 1.0, True),
    "by matrix, by steps, a tenth of the noise": by_matrix(0.05, 0.1, True),
    "by matrix, 0.003, a tenth of the noise": by_matrix(3e-3, 0.1),
    "by matrix, 0.01, a tenth of the noise": by_matrix(1e-2, 0.1),
    "by matrix, 0.003, without noise": by_matrix(3e-3, 1e-8),
    "by matrix, 0.01, without noise": by_matrix(1e-2, 1e-8),
    "rule, without noise, four times the rate": by_rule(4.0, ess=lambda s: 1e8 * s["ess"]),
    "rule, a tenth of the noise, four times the rate": by_rule(4.0, ess=lambda s: 10 * s["ess"]),
    "rule, without noise, half the rate": by_rule(0.5, ess=lambda s: 1e8 * s["ess"]),
    "rule, without noise, no max_norm": by_rule(ess=lambda s: 1e8 * s["ess"], max_norm=math.inf),
}


@cache
def parts(stream: str, seed: int) -> list[tuple[TensorData, TensorData]]:
    """Training and validation data of each experience."""
    setting = STREAMS[stream]
    benchmark = split_benchmark(setting.data(), 5, shuffle_classes=True, seed=seed, validation=0.2)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for train, held_out in zip(benchmark.train_stream, benchmark.valid_stream, strict=True):
        data, test = train.tensors(), held_out.tensors()
        rows = torch.randperm(len(data), generator=generator)[: setting.examples]
        tested = torch.randperm(len(test), generator=generator)[:TESTED]
        found.append((some(data, rows), some(test, tested)))
    return found


def some(data: TensorData, rows: Tensor) -> TensorData:
    kept = {name: getattr(data, name)[rows] for name in ("x", "y", "tasks", "index")}
    return replace(data, **kept)


def run(stream: str, step: str, seed: int) -> dict[str, float]:
    """Learns once."""
    setting = STREAMS[stream]
    experiences = parts(stream, seed)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network, algorithm = setting.network(), Unmeasured(candidates=CANDIDATES, **setting.memory)
    inputs = Inputs.of(experiences[0][0])
    n = len(experiences[0][0])
    optimizer = STEPS[step](network, n, setting.epochs * math.ceil(n / setting.batch))
    start, just = time.perf_counter(), []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return network(inputs.normalised(x))

    def probabilities(test: TensorData) -> Tensor:
        with torch.no_grad(), evaluating(network):
            return torch.cat([predict(x, x) for x in test.x.split(500)]).softmax(1)

    for e, (train, test) in enumerate(experiences):
        network.train()
        algorithm.begin_experience(train)
        rows_of = [r for _ in range(setting.epochs) for r in torch.randperm(len(train), generator=generator).split(setting.batch)]
        for i, rows in enumerate(rows_of):
            lower_learning_rate(optimizer, 0.0, i / len(rows_of))

            def closure(train: TensorData = train, rows: Tensor = rows) -> Tensor:
                optimizer.zero_grad()
                loss, _ = algorithm.loss(network, predict, train.x[rows], train.y[rows], train.tasks[rows])
                loss.backward()
                return loss

            try:
                optimizer.step(closure)  # type: ignore[arg-type]
            except FloatingPointError:
                return {"accuracy": 0.0, "just_learned": 0.0, "nll": math.inf, "seconds": time.perf_counter() - start}
        with evaluating(network):
            algorithm.end_experience(network, predict, train, e, Posterior.of(network, optimizer))
        just.append(float((probabilities(test).argmax(1) == test.y).float().mean()))
    metric = StreamMetric(1)
    for _, test in experiences:
        metric.update(probabilities(test), test.y, 0)
    found = metric.compute()
    seconds = time.perf_counter() - start
    return {"accuracy": found["accuracy"][0], "just_learned": statistics.mean(just), "nll": found["nll"], "seconds": seconds}


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=[*STREAMS])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=[*STEPS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[3])
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    for stream in args.streams:
        print(f"{stream:36s} {'at the end':>10s} {'just learned':>12s} {'NLL':>6s}   seeds")
        for step in args.steps:
            got = [run(stream, step, seed) for seed in args.seeds]
            accuracy, just, nll, seconds = (statistics.mean(r[k] for r in got) for k in got[0])
            each = ", ".join(f"{r['accuracy']:.3f}" for r in got)
            print(f"  {step:34s} {accuracy:10.3f} {just:12.3f} {nll:6.3f}   {each} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
