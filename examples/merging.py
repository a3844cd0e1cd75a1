"""Experts of turned digits, merged into one network without their data: what each is sure of decides."""

import copy

import torch
import torch.nn.functional as F

from bayesdual.merging import merge
from bayesdual.models import MLP
from bayesdual.posterior import kronecker_curvature
from bayesdual.scenarios import RotatedDigits
from bayesdual.stream import normalise

torch.manual_seed(0)
benchmark = RotatedDigits(n_experiences=4, rotations=[0, 45, 90, 135])  # the first is the base's


def images(experience):
    data = experience.tensors()
    return normalise(data.x, data.mean, data.std), data.y


def trained(network, x, y, epochs=15):
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    return network.eval()


train = [images(experience) for experience in benchmark.train_stream]
test = [images(experience) for experience in benchmark.test_stream]
base = trained(MLP(in_features=64, hidden=(100, 100)), *train[0])
experts = [trained(copy.deepcopy(base), x, y) for x, y in train[1:]]

# What the data say of the weights, summed over examples: this, and the weights, is all that the merge needs.
base_curvature, *curvatures = (
    kronecker_curvature(network, x, torch.ones(len(x)), generator=torch.Generator().manual_seed(0))
    for network, (x, _) in zip([base, *experts], train, strict=True)
)
merged = {
    "average": merge(base, experts, method="average"),
    "task arithmetic": merge(base, experts, method="task_arithmetic", alpha=0.5),
    "RegMean": merge(base, experts, method="regmean", curvatures=curvatures),
    "gradient matching": merge(base, experts, curvatures=curvatures, base_curvature=base_curvature, base_scale=0.1),
}

for name, network in {"base": base, **merged}.items():
    accuracies = [float((network(x).argmax(1) == y).float().mean()) for x, y in test[1:]]
    print(f"{name:<18} {sum(accuracies) / len(accuracies):.3f}")
