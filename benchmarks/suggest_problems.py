"""Small problems of several kinds for ``ivon_suggest.py``: data, a network, and how long it is trained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.models import CNN, MLP
from bayesdual.scenarios import cifar10, digits, fashion_mnist
from bayesdual.stream import normalise

WORDS, LENGTH, WIDTH, INTENTS = 2000, 12, 32, 30


@dataclass(frozen=True)
class Data:
    """Examples to learn from, to tune on and to test with."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Problem:
    """What is learned, by what, and for how long."""

    data: Callable[[], Data]
    network: Callable[[], nn.Module]
    epochs: int
    batch: int


@cache
def images(get: Callable, n: int, validation: int, tested: int = 10_000) -> Data:
    """The first images, normalised; those for validation come after them."""
    raw = get()
    x, test_x = normalise(raw.train_x, raw.mean, raw.std), normalise(raw.test_x, raw.mean, raw.std)
    held_out = slice(n, n + validation)
    return Data((x[:n], raw.train_y[:n]), (x[held_out], raw.train_y[held_out]), (test_x[:tested], raw.test_y[:tested]))


@cache
def sentences() -> Data:
    """Sentences of 30 intents of CLINC150, as numbers of words; 0 is no word, and 1 one that is not known."""
    raw = json.loads(Path("data/clinc150.json").read_text())
    intents = sorted({intent for _, intent in raw["train"]})[:INTENTS]
    number_of_intent = {intent: i for i, intent in enumerate(intents)}
    counts = Counter(word for text, intent in raw["train"] for word in text.split() if intent in number_of_intent)
    number = {word: i + 2 for i, (word, _) in enumerate(counts.most_common(WORDS - 2))}

    def part(name: str) -> tuple[Tensor, Tensor]:
        rows = [(text, number_of_intent[intent]) for text, intent in raw[name] if intent in number_of_intent]
        x = torch.zeros(len(rows), LENGTH, dtype=torch.long)
        for row, (text, _) in zip(x, rows, strict=True):
            words = [number.get(word, 1) for word in text.split()[:LENGTH]]
            row[: len(words)] = torch.tensor(words)
        return x, torch.tensor([y for _, y in rows])

    return Data(part("train"), part("val"), part("test"))


class Transformer(nn.Module):
    """Two layers of 32 numbers a word, averaged over the words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, INTENTS)

    def forward(self, x: Tensor) -> Tensor:
        """Sentences, shape (B, LENGTH), to logits, shape (B, INTENTS)."""
        empty = x == 0
        z = self.norm(self.layers(self.words(x) + self.places, src_key_padding_mask=empty))
        there = (~empty).unsqueeze(-1).float()
        return self.head((z * there).sum(1) / there.sum(1))


class ResNet(nn.Module):
    """Three residual blocks of 16, 32 and 64 channels with batch norm, on images of half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, b, 3, stride, 1, bias=False),
                nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1, bias=False),
            )
            for a, b, stride in widths
        )  # fmt: skip
        self.skips = nn.ModuleList(nn.Conv2d(a, b, 1, stride, bias=False) for a, b, stride in widths)
        self.norm, self.head = nn.BatchNorm2d(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images, shape (B, 3, 32, 32), to logits, shape (B, 10)."""
        z = self.stem(F.avg_pool2d(x, 2))
        for block, skip in zip(self.blocks, self.skips, strict=True):
            z = block(z) + skip(z)
        return self.head(F.relu(self.norm(z)).mean((2, 3)))


fashion = partial(images, fashion_mnist)
MLP_28 = partial(MLP, 784, (256, 256))
PROBLEMS = {
    "digits, MLP, 20 epochs": Problem(partial(images, digits, 1238, 200), partial(MLP, 64, (256, 256)), 20, 64),
    "digits, CNN, 10 epochs": Problem(partial(images, digits, 1238, 200), partial(CNN, 8), 10, 64),
    "Fashion-MNIST, MLP, 27 steps": Problem(partial(fashion, 27 * 128, 2000), MLP_28, 1, 128),
    "Fashion-MNIST, MLP, 79 steps": Problem(partial(fashion, 10_000, 2000), MLP_28, 1, 128),
    "Fashion-MNIST, MLP, 790 steps": Problem(partial(fashion, 10_000, 2000), MLP_28, 10, 128),
    "CLINC150, transformer, 10 epochs": Problem(sentences, Transformer, 10, 64),
    "CIFAR-10, ResNet, 6 epochs": Problem(partial(images, cifar10, 4000, 2000, 4000), ResNet, 6, 128),
    "Fashion-MNIST, MLP, 5 epochs": Problem(partial(fashion, 58_000, 2000), MLP_28, 5, 128),
}
