"""IVON with parameters of bfloat16: what becomes of the mean, which the parameter can only hold rounded.

    python benchmarks/ivon_half.py

    float32            parameters of 32 bits
    copy               of 16 bits, and the mean once more in float32, as IVON keeps it
    stochastic         of 16 bits; each step rounds the mean up or down at random, without bias, and keeps no more
    nearest            of 16 bits; each step rounds the mean to the nearest, and keeps no more

All have the same seeds, batches, noise and settings; the learning rate falls to 0 by a cosine. Prints test accuracy and
NLL at the mean, of each seed; nothing is tuned. Takes minutes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.ivon import IVON
from bayesdual.models import MLP
from bayesdual.scenarios import RawDataset, digits, fashion_mnist
from bayesdual.stream import normalise

BATCH = 64
TASKS: dict[str, tuple[Callable[[], RawDataset], Callable[[], nn.Module], int, int, Any]] = {
    "digits, MLP": (digits, partial(MLP, 64, (256, 256)), 1438, 30, {"lr": 0.3, "hess_init": 0.5}),
    "digits, MLP, small steps": (digits, partial(MLP, 64, (256, 256)), 1438, 30, {"lr": 0.03, "hess_init": 0.5}),
    "Fashion-MNIST, MLP": (fashion_mnist, partial(MLP, 784, (256, 256)), 10_000, 5, {"lr": 0.1, "hess_init": 0.1}),
}


@torch.no_grad()
def forget(optimizer: IVON, rounded: Callable[[Tensor], Tensor]) -> None:
    """Keeps no more of the mean than a parameter can hold."""
    for p, state in optimizer.state.items():
        p.data.copy_(rounded(state["mean"]))
        state["mean"].copy_(p)


def stochastically(mean: Tensor) -> Tensor:
    """To one of the two nearest bfloat16, with probabilities that leave the mean where it is: noise below 16 bits."""
    bits = mean.view(torch.int32) + torch.randint(1 << 16, mean.shape, dtype=torch.int32)
    return (bits & -(1 << 16)).view(torch.float32)


WAYS: dict[str, Callable[[IVON], None]] = {
    "float32": lambda optimizer: None,
    "copy": lambda optimizer: None,
    "stochastic": partial(forget, rounded=stochastically),
    "nearest": partial(forget, rounded=lambda mean: mean),
}


def run(task: str, way: str, seed: int) -> tuple[float, float]:
    """Test accuracy and NLL at the mean."""
    get, network, n, epochs, settings = TASKS[task]
    data = get()
    dtype = torch.float32 if way == "float32" else torch.bfloat16
    x, test_x = (normalise(images, data.mean, data.std).to(dtype) for images in (data.train_x[:n], data.test_x))
    torch.manual_seed(seed)
    model = network().to(dtype)
    optimizer = IVON(model.parameters(), ess=n, betas=(0.9, 0.9999), seed=seed, **settings)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(n / BATCH))
    for _ in range(epochs):
        for rows in torch.randperm(n).split(BATCH):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]).float(), data.train_y[rows]).backward()
            optimizer.step()
            WAYS[way](optimizer)
            scheduler.step()
    with torch.no_grad():
        logits = model.eval()(test_x).float()
    accuracy = (logits.argmax(1) == data.test_y).float().mean()
    return 100 * float(accuracy), float(F.cross_entropy(logits, data.test_y))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for task in args.tasks:
        print(f"{task}, {TASKS[task][3]} epochs of {TASKS[task][2]} examples")
        for way in WAYS:
            results = [run(task, way, seed) for seed in range(args.seeds)]
            cells = [
                f"{name} {sum(values) / len(values):.{n}f} ({', '.join(f'{v:.{n}f}' for v in values)})"
                for name, n, values in zip(("accuracy %", "NLL"), (2, 4), zip(*results, strict=True), strict=True)
            ]
            print(f"  {way:12s} {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
