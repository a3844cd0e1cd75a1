"""A benchmark seen through a frozen backbone: its features, computed once and kept on disk.

The features of all inputs of a source are kept in one file, in half precision, so that every order of the classes,
every validation split and every seed reads them from there. The name of the file, and the ``origin`` of the stream's
data, say which backbone they are of: of which class and code, with which weights and plain attributes. A backbone that
has changed has features of its own, in another file, and a memory of those before refuses them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.scenarios import EagerCLStream
from torch import Tensor, nn

from bayesdual.models import evaluating
from bayesdual.scenarios.benchmark import Rows, TensorBenchmark, TensorExperience, check_validation, identity
from bayesdual.scenarios.datasets import stratified_split
from bayesdual.scenarios.scaling import Scale, scale_of
from bayesdual.sources import digest
from bayesdual.tensor_files import checksum, read_tensors, write_tensors

PLAIN = (bool, int, float, str, type(None))
DIGITS = 16  # of a checksum, in a name
ENOUGH = 1000  # rows that are scaled at once
PATIENCE = 20.0  # seconds between two words of how far it is


def features_of(
    benchmark: Callable[..., TensorBenchmark],
    backbone: nn.Module,
    folder: str | Path = "data/features",
    examples_per_class: int | None = None,
    validation: float = 0.0,
    standardise: bool = True,
    batch_size: int = 100,
    seed: int = 0,
) -> TensorBenchmark:
    """Another benchmark, by what a frozen backbone makes of its inputs.

    The backbone gets inputs as the benchmark holds them (images in uint8, token ids), and is never trained. A network
    for these features is ``bayesdual.models.MLP(in_features=D, hidden=[])``, a linear head.

    Args:
        benchmark: One of ``bayesdual.scenarios`` that holds its inputs as tensors, or what returns one.
        backbone: Maps inputs (B, ...) to features (B, D); of your own installation.
        folder: Where features are kept.
        examples_per_class: How many training examples of each class of an experience are taken, drawn by the seed;
            None: all.
        validation: Share of these, class by class, that makes the stream ``valid``; 0: it is the benchmark's, if any.
        standardise: Give each feature mean 0 and standard deviation 1 in the first experience's training data.
        batch_size: Inputs that go through the backbone at once.
        seed: Of what is drawn.

    Returns:
        A benchmark of the same experiences; its ``encoding`` makes inputs of further images or token ids.

    Raises:
        ValueError: The benchmark holds no tensors, or the backbone does not give a row of finite numbers for each
            input.
    """
    if examples_per_class is not None and examples_per_class < 1:
        raise ValueError(f"examples_per_class is {examples_per_class}: give at least 1.")
    source = benchmark if isinstance(benchmark, TensorBenchmark) else benchmark()
    if not isinstance(source, TensorBenchmark):
        raise ValueError(f"features_of takes a benchmark that holds its inputs as tensors, not {source!r:.80}.")
    origin = fingerprint(backbone)
    held: dict[str, Sequence[Rows]] = {
        stream.name: [experience.rows for experience in stream] for stream in source.streams.values()
    }
    if examples_per_class is not None:
        held["train"] = [_fewer(rows, examples_per_class, seed) for rows in held["train"]]
    if validation:
        check_validation(validation)
        held["train"], held["valid"] = zip(*(_split(rows, validation, seed) for rows in held["train"]), strict=True)
    views = {_view(rows): rows for of_stream in held.values() for rows in of_stream}
    known = {
        view: kept_features(backbone, rows.view(rows.x), Path(folder), origin, batch_size)
        for view, rows in views.items()
    }
    scale = _scale(held["train"], known) if standardise else None
    used = {
        view: torch.cat(
            [rows.rows for of_stream in held.values() for rows in of_stream if _view(rows) == view]
        ).unique()
        for view in known
    }
    known = {view: _scaled(x, used[view], scale) for view, x in known.items()}
    timeline = [experience.classes_in_this_experience for experience in source.train_stream]
    streams = [
        EagerCLStream(name, [
            TensorExperience(
                replace(rows, x=known[_view(rows)], view=identity, mean=(), std=(), origin=origin), i, timeline
            )
            for i, rows in enumerate(of_stream)
        ])
        for name, of_stream in held.items()
    ]  # fmt: skip
    result = TensorBenchmark(streams, timeline, source.class_names)
    result.encoding = Encoding(backbone, scale, batch_size)
    return result


@dataclass(frozen=True, eq=False)
class Encoding:
    """Images or token ids to features, as a stream of them has these.

    Attributes:
        backbone: The frozen network.
        scale: What makes features alike; None: they stay as they are.
        batch_size: Inputs that go through the backbone at once.
    """

    backbone: nn.Module
    scale: Scale | None
    batch_size: int

    def __call__(self, x: Tensor) -> Tensor:
        """Inputs (N, ...) to features (N, D), float32."""
        features = computed(self.backbone, x, self.batch_size)
        return features.float() if self.scale is None else self.scale(features)


def fingerprint(network: nn.Module) -> str:
    """Which backbone it is: its class and, as a checksum, the code, weights and plain attributes of all its modules."""
    name = f"{type(network).__module__}.{type(network).__qualname__}"
    plain = {
        f"{place}.{key}": repr(value)
        for place, module in network.named_modules()
        for key, value in sorted(vars(module).items())
        if not key.startswith("_") and key != "training" and _is_plain(value)
    }
    weights = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    return f"{type(network).__name__}-{checksum(weights, {**plain, 'class': name, 'code': digest(name)})[:DIGITS]}"


def kept_features(network: nn.Module, x: Tensor, folder: Path, origin: str, batch_size: int) -> Tensor:
    """Features of inputs, float16, from the file that keeps them, which is written where it is not there.

    Args:
        network: The backbone.
        x: Inputs, shape (N, ...).
        folder: Where the file is.
        origin: What :func:`fingerprint` says of the backbone.
        batch_size: Inputs that go through it at once.

    Raises:
        ValueError: The file is damaged, or the backbone gives no features.
    """
    path = folder / f"{origin}-{checksum({'x': x}, {})[:DIGITS]}.safetensors"
    if path.is_file():
        return read_tensors(path, "features")[0]["features"]
    features = computed(network, x, batch_size)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"features": features}, {"origin": origin})
    return features


@torch.no_grad()
def computed(network: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """What a backbone makes of inputs (N, ...): shape (N, D), float16, in which they are kept.

    Raises:
        ValueError: It gives no row of finite numbers for each.
    """
    parts, said = [], time.monotonic()
    with evaluating(network):
        for some in x.split(batch_size):
            features = network(some)
            if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(some):
                shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
                raise ValueError(
                    f"the backbone gives {shape} for inputs of shape {tuple(some.shape)}: give one that makes a row of "
                    "features of each."
                )
            parts.append(features.cpu().half())
            if not parts[-1].isfinite().all():
                raise ValueError("the backbone gives features that are infinite, not numbers, or above 65,504.")
            if time.monotonic() - said > PATIENCE:
                said = time.monotonic()
                print(f"features: {sum(map(len, parts)):,} of {len(x):,} inputs", flush=True)
    return torch.cat(parts)


def _view(rows: Rows) -> tuple[int, int]:
    """Which inputs rows are of: those of one source, seen alike."""
    return id(rows.x), id(rows.view)


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, tuple | list) else isinstance(value, PLAIN)


def _fewer(rows: Rows, most: int, seed: int) -> Rows:
    """At most so many rows of each class."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    labels = rows.y[rows.rows[order]]
    chosen = torch.cat([order[labels == label][:most] for label in labels.unique()])
    return replace(rows, rows=rows.rows[chosen.sort().values])


def _split(rows: Rows, validation: float, seed: int) -> tuple[Rows, Rows]:
    """Those to learn from and those that are held out, of each class."""
    kept, out = stratified_split(rows.y[rows.rows], validation, seed)
    return replace(rows, rows=rows.rows[torch.from_numpy(kept)]), replace(rows, rows=rows.rows[torch.from_numpy(out)])


def _scaled(x: Tensor, used: Tensor, scale: Scale | None) -> Tensor:
    """Features as a stream has them, float32; of those that it does not use 0."""
    scaled = torch.zeros(x.shape)
    for rows in used.split(ENOUGH):
        scaled[rows] = x[rows].float() if scale is None else scale(x[rows])
    return scaled


def _scale(train: Sequence[Rows], known: dict[tuple[int, int], Tensor]) -> Scale:
    first, learned = known[_view(train[0])][train[0].rows], torch.cat([known[_view(rows)][rows.rows] for rows in train])
    both = torch.cat([first, learned]).float()
    names = [f"feature {i}" for i in range(both.shape[1])]
    return scale_of(both, torch.arange(len(first)), torch.arange(len(first), len(both)), names)
