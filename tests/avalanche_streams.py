"""Small Avalanche benchmarks and models for the tests of the Avalanche host."""

from __future__ import annotations

import torch
from avalanche.benchmarks import benchmark_from_datasets, nc_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from torch import nn
from torch.utils.data import TensorDataset

FEATURES = 6


def clusters(n_per_class, seed, n_classes=10):
    """A Gaussian cluster for each class."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(n_classes, FEATURES, generator=torch.Generator().manual_seed(7))
    y = torch.arange(n_classes).repeat_interleave(n_per_class)
    dataset = TensorDataset(centres[y] + torch.randn(len(y), FEATURES, generator=generator), y)
    dataset.targets = y.tolist()
    return dataset


def benchmark(task_labels=False, n_per_class=20):
    """Ten classes, two in each of five experiences."""
    return nc_benchmark(
        clusters(n_per_class, 0), clusters(10, 1), 5, task_labels=task_labels, fixed_class_order=list(range(10))
    )


def pieces(indices, n_per_class=20):
    """A stream of tiny experiences that hold the given rows of the clusters, without task labels."""
    x, y = clusters(n_per_class, 0).tensors
    datasets = []
    for rows in indices:
        dataset = TensorDataset(x[rows], y[rows])
        dataset.targets = y[rows].tolist()
        datasets.append(as_classification_dataset(dataset))
    return benchmark_from_datasets(train=datasets).train_stream


def mlp(head=None, norm=False):
    torch.manual_seed(0)
    body = [nn.Linear(FEATURES, 20), *([nn.BatchNorm1d(20)] if norm else []), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(20, 10) if head is None else head)


class MultiHead(MultiTaskModule):
    """A head for each task."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 20), nn.ReLU())
        self.head = MultiHeadClassifier(20)

    def forward(self, x, task_labels):
        return self.head(self.body(x), task_labels)


def growing_mlp():
    torch.manual_seed(0)
    return mlp(IncrementalClassifier(20))
