"""What part of IVON's step loses in short experiences and on heads: the same method, learned by other steps.

    python benchmarks/ivon_streams.py [--streams NAME ...] [--steps NAME ...] [--seeds 3 ...]

Streams of five experiences of two classes in an order drawn by the seed, ours with its defaults but for fewer
candidates for the memory, a learning rate that falls to 0; 400 validation examples of each experience, which are left
out of the training data: test data are not looked at. Printed are the accuracy on all classes at the end, that on each
experience when just learned (among all classes), NLL at the end, and the accuracy of each seed.
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
from bayesdual.ivon import IVON, IVONByMatrix, IVONByRule, ivon_by_matrix
from bayesdual.ivon.rule import SHARE
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
    return RawDataset("features", x, y, test_x, test_y, (), (), cifar10().classes)


FEATURES = {"memory_bytes": 200_000, "temperature": 1.0}
MLP_28 = partial(MLP, 784, (256, 256))
STREAMS = {
    "Digits, MLP": Stream(
        digits, partial(MLP, 64, (256, 256)), None, 50, 32, {"memory_size": 100, "replay_batch_size": 128}
    ),
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
        group = made.param_groups[0] | {"max_norm": made.max_norm}
        settings = {n: group[n] for n in ("lr", "ess", "hess_init", "betas", "weight_decay", "max_norm")}
        others = {n: value(settings) if callable(value) else value for n, value in changed.items()}
        return IVON(network.parameters(), **settings | others)

    return make


def of_length(step: float, noise: float, by_steps: bool = False, betas: tuple[float, float] = (0.9, 0.9999)) -> Make:
    """Steps of one length in each matrix, and the rule's noise times a factor."""

    def make(network: nn.Module, examples: int, steps: int) -> IVON:
        length = step / math.sqrt(steps) if by_steps else step
        return ivon_by_matrix(network.parameters(), length, noise * SHARE, betas)

    return make


def more(factor: float) -> Callable[[dict[str, Any]], float]:
    """The rule's ess times a factor: the noise is as many times less."""
    return lambda settings: factor * settings["ess"]


def at_default(network: nn.Module, examples: int, steps: int) -> IVON:
    return IVONByMatrix().make(network.parameters(), examples, steps)


HEADS = IVONByRule(0.25, weight_decay=0.01, noise=0.01)
NONE, STILL = 1e8, (0.9, 1 - 1e-12)  # without noise the Hessian cannot be learned: it stays where it is
STEPS: dict[str, Make] = {
    "Adam, 0.001": adam(1e-3),
    "Adam, 0.003": adam(3e-3),
    "Adam, 0.001, decay 0.01": adam(1e-3, weight_decay=0.01),
    "rule": by_rule(),
    "rule, a fourth of the rate": by_rule(0.25),
    "rule, four times the rate": by_rule(4.0),
    "rule, a tenth of the noise": by_rule(ess=more(10)),
    "rule, without noise": by_rule(ess=more(NONE), betas=STILL),
    "rule, without noise, four times the rate": by_rule(4.0, ess=more(NONE), betas=STILL),
    "rule, decay 0.01": by_rule(weight_decay=0.01),
    "rule, decay 0.01, without noise": by_rule(weight_decay=0.01, ess=more(NONE), betas=STILL),
    "rule for heads": lambda network, n, steps: HEADS.make(network.parameters(), n, steps),
    "by matrix": at_default,
    "by matrix, ten times the noise": of_length(0.05, 1.0, True),
    "by matrix, 0.003": of_length(3e-3, 0.1),
    "by matrix, 0.01": of_length(1e-2, 0.1),
    "by matrix, 0.003, without noise": of_length(3e-3, 1 / NONE, betas=STILL),
    "by matrix, 0.01, without noise": of_length(1e-2, 1 / NONE, betas=STILL),
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
        orders = (torch.randperm(len(train), generator=generator) for _ in range(setting.epochs))
        rows_of = [rows for order in orders for rows in order.split(setting.batch)]
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
    learned = {"accuracy": found["accuracy"][0], "just_learned": statistics.mean(just), "nll": found["nll"]}
    return learned | {"seconds": time.perf_counter() - start}


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
