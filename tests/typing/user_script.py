"""What the documentation calls, in a user's own script: strict type checkers find no error in it, and it runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import bayesdual
from bayesdual import (
    IVON,
    BayesDual,
    KroneckerPrior,
    Learner,
    Posterior,
    StreamDataModule,
    function_variance,
    sensitivities,
)
from bayesdual.ivon import IVONByRule, IVONCallback, ivon_settings
from bayesdual.kprior import DiagonalPrior, WeightPrior
from bayesdual.measures import Matrix, StreamMetric, average_accuracy
from bayesdual.memory import Candidates, Selection, herding
from bayesdual.models import MLP
from bayesdual.scenarios import RawDataset, SplitDigits, digits, split_benchmark
from bayesdual.strategies import BayesDualPlugin
from bayesdual.stream import ExperienceData, TensorData, experience_data


def blobs(n: int = 60) -> TensorData:
    y = torch.arange(n) % 3
    return TensorData(torch.randn(n, 4) + y[:, None], y, torch.zeros_like(y), torch.arange(n))


def optimizer_alone(model: nn.Module, data: TensorData) -> Posterior:
    optimizer: torch.optim.Optimizer = IVON(model.parameters(), lr=0.1, ess=len(data))
    ivon = IVON(model.parameters(), **ivon_settings(sum(p.numel() for p in model.parameters()), len(data), 20))
    for _ in range(3):
        with ivon.sampled_params(train=True):
            loss = cross_entropy(model(data.x), data.y)
            loss.backward()
        ivon.step()
    optimizer.zero_grad()
    return Posterior.from_optimizer(model, ivon)


def what_the_posterior_says(model: nn.Module, data: TensorData, posterior: Posterior) -> Tensor:
    variance: Tensor = function_variance(model, data.x, posterior)
    leverage: Tensor = sensitivities(model, data, posterior).leverage
    return variance.sum() + leverage.sum()


def the_algorithm_in_a_loop_of_ones_own(model: nn.Module, stream: list[ExperienceData]) -> BayesDual:
    algorithm = BayesDual(memory_size=30)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        logits: Tensor = model(x)
        return logits

    for number, data in enumerate(stream):
        algorithm.begin_experience(data)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss, _ = algorithm.loss(model, predict, data.inputs(torch.arange(len(data.y))), data.y, data.tasks)
        loss.backward()
        optimizer.step()
        algorithm.end_experience(model.eval(), predict, data, number)
    return algorithm


def first_ones(candidates: Candidates, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A selection of one's own."""
    return torch.arange(n), torch.ones(n)


def lightning_host() -> tuple[Learner, StreamDataModule]:
    prior: WeightPrior = DiagonalPrior()
    selection: Selection = first_ones
    algorithm = BayesDual(memory_size=100, weight_prior=prior, selection=selection)
    learner = Learner(MLP(in_features=64), algorithm, optimizer=IVONByRule())
    return learner, StreamDataModule(SplitDigits, epochs=1)


def avalanche_host() -> BayesDualPlugin:
    return BayesDualPlugin(BayesDual(memory_size=100, weight_prior=KroneckerPrior(), selection=herding))


def main() -> None:
    model, data = MLP(4, n_classes=3, hidden=[8]), blobs()
    assert bool(what_the_posterior_says(model, data, optimizer_alone(model, data)).isfinite())
    assert len(the_algorithm_in_a_loop_of_ones_own(model, [data, blobs()]).memory) == 30
    _, stream = lightning_host()
    first: ExperienceData = experience_data(stream.benchmark.train_stream[0])
    source: RawDataset = digits()
    again = split_benchmark(source, n_experiences=5).train_stream[0]
    assert torch.equal(first.y, again.tensors().y)
    assert avalanche_host().algorithm.memory.budget == 100
    metric, matrix = StreamMetric(n_experiences=1), [[0.5]]
    accuracies: Matrix = matrix
    metric.update(torch.eye(3), torch.arange(3), 0)
    assert metric.compute()["accuracy"] == [1.0] and average_accuracy(accuracies) == 0.5
    print(bayesdual.__version__, IVONCallback.__name__)


if __name__ == "__main__":
    main()
