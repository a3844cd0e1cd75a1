"""Models in files, whose tensors are read when they are needed, and files that are written tensor by tensor.

A file is mapped into memory, and mapped anew after every few megabytes that were read of it, so that what was read does
not stay. Nothing in a file is executed.

What is known as a model:

- a run directory, or what ``merge`` wrote: ``posterior.safetensors``, which has the curvature too; statistics of batch
  norms from ``model.safetensors`` or ``checkpoints/last.ckpt``;
- a directory of PEFT's or transformers': ``adapter_model.safetensors``, ``model.safetensors`` or
  ``model.safetensors.index.json`` with its shards;
- a posterior (``Posterior.save``), any other safetensors file, or the index of a sharded one;
- a checkpoint of a ``Learner``, with the curvature of its posterior, or of another LightningModule;
- anything else that ``torch.load`` reads with ``weights_only=True``: a dictionary of tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bayesdual.merging.sources import WHOLE, Model, Source
from bayesdual.posterior import POSTERIOR_FORMATS

REMAP = 2**22  # bytes that are read of a file before it is mapped anew
ADAPTER = "adapter_model.safetensors"
MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
POSTERIOR = "posterior.safetensors"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

Tensors = Callable[[str], Tensor]


@dataclass(frozen=True, eq=False)
class Opened:
    """A model in files.

    Attributes:
        model: Its tensors, and what is known of its curvature.
        prior_precision: delta of its posterior; None if it has none.
        kind: What it was recognised as, in words.
        file: The file that its weights are in.
    """

    model: Model
    prior_precision: float | None
    kind: str
    file: Path


class Mapped:
    """Tensors of one file.

    Args:
        path: The file.
        open_tensors: Maps the file: gives the tensors in it by name, which share its memory.
        names: The name in the file of each tensor, by its own.
        shapes: The shapes of the tensors.
    """

    def __init__(
        self,
        path: Path,
        open_tensors: Callable[[Path], Tensors],
        names: Mapping[str, str],
        shapes: Mapping[str, torch.Size],
    ) -> None:
        self.shapes = shapes
        self._path, self._open, self._names = path, open_tensors, names
        self._tensors: Tensors | None = None
        self._read = 0

    def read(self, name: str, part: slice = WHOLE) -> Tensor:
        if self._tensors is None or self._read > REMAP:
            self._tensors, self._read = None, 0  # the old mapping ends before the new one begins
            self._tensors = self._open(self._path)
        tensor = self._tensors(self._names[name]).reshape(-1)[part]
        self._read += tensor.numel() * tensor.element_size()
        return tensor


class Joined:
    """Tensors of several sources; of a name that two have, the first one's.

    Args:
        parts: The sources.
    """

    def __init__(self, parts: Iterable[Source]) -> None:
        parts = list(parts)
        self._homes: dict[str, Source] = {}
        for part in parts:
            for name in part.shapes:
                self._homes.setdefault(name, part)
        self.shapes = {name: part.shapes[name] for name, part in self._homes.items()}

    def read(self, name: str, part: slice = WHOLE) -> Tensor:
        return self._homes[name].read(name, part)


# ---- Reading -----------------------------------------------------------------------------------------------


def open_model(path: str | Path, label: str | None = None) -> Opened:
    """Opens a model, of any of the kinds above.

    Args:
        path: A file or a directory.
        label: What sentences call it; None: its path.

    Raises:
        ValueError: There is none, or it is damaged.
    """
    path, label = Path(path), str(path) if label is None else label
    if path.is_dir():
        return _directory(path, label)
    if not path.is_file():
        raise ValueError(f"{label}: there is no such file or directory.")
    if path.suffix == ".json":
        return Opened(Model(label, _sharded(path)), None, "sharded safetensors", path)
    if path.suffix == ".safetensors":
        return _safetensors(path, label)
    return _torch(path, label)


def _directory(path: Path, label: str) -> Opened:
    for name in (POSTERIOR, ADAPTER, MODEL, INDEX):
        if (path / name).is_file():
            opened = open_model(path / name, label)
            if name == POSTERIOR:
                model = _with_statistics(opened.model, path)
                return Opened(model, opened.prior_precision, "directory with a posterior", opened.file)
            return Opened(opened.model, None, "adapter" if name == ADAPTER else opened.kind, opened.file)
    raise ValueError(f"{label} has no model: none of {POSTERIOR}, {ADAPTER}, {MODEL} and {INDEX} is in it.")


def _with_statistics(model: Model, directory: Path) -> Model:
    """A posterior's means, and what the network has besides."""
    for file in (directory / MODEL, directory / "checkpoints" / "last.ckpt"):
        if file.is_file():
            return Model(model.label, Joined([model.weights, open_model(file).model.weights]), model.diagonal)
    return model


def _safetensors(path: Path, label: str) -> Opened:
    shapes, metadata = _header(path)
    if metadata.get("format") not in POSTERIOR_FORMATS:
        return Opened(Model(label, _part(path, shapes, "")), None, "safetensors", path)
    diagonal = Joined(_part(path, shapes, kind) for kind in ("curvature/", "precision/"))
    delta = float(metadata.get("prior_precision", 0))
    return Opened(Model(label, _part(path, shapes, "mean/"), diagonal), delta, "posterior", path)


def _header(path: Path) -> tuple[dict[str, torch.Size], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged ({error}).") from None


def _part(path: Path, shapes: Mapping[str, torch.Size], prefix: str) -> Mapped:
    """The tensors whose names begin with a prefix, without it."""
    names = {name.removeprefix(prefix): name for name in shapes if name.startswith(prefix)}
    return Mapped(path, _map_safetensors, names, {name: shapes[theirs] for name, theirs in names.items()})


def _map_safetensors(path: Path) -> Tensors:
    return safe_open(path, "pt").get_tensor


def _sharded(path: Path) -> Joined:
    try:
        homes = json.loads(path.read_text())["weight_map"]
        files = sorted({Path(str(file)).name for file in homes.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not the index of a sharded model: it has no weight_map.") from None
    if missing := [file for file in files if not (path.parent / file).is_file()]:
        raise ValueError(f"{path} names {missing[0]}, which is not beside it: copy all shards.")
    joined = Joined(_part(path.parent / file, _header(path.parent / file)[0], "") for file in files)
    if lost := sorted(homes.keys() - joined.shapes.keys()):
        raise ValueError(f"{path} names {lost[0]!r}, which is in no shard: it is damaged.")
    return joined


def _torch(path: Path, label: str) -> Opened:
    content = _load(path)
    if "pytorch-lightning_version" not in content:
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if not tensors or len(tensors) < len(content):
            raise ValueError(f"{path} is not a dictionary of tensors alone: save model.state_dict().")
        return Opened(Model(label, _of_torch(path, (), tensors)), None, "state dict", path)
    ours = content.get("bayesdual", {})
    prefix = "network." if ours else ""
    names = {n.removeprefix(prefix): value for n, value in content["state_dict"].items() if n.startswith(prefix)}
    weights = _of_torch(path, ("state_dict",), names, prefix)
    posterior = ours.get("algorithm", {}).get("posterior")
    if posterior is None:
        return Opened(Model(label, weights), None, "checkpoint", path)
    diagonal = _of_torch(path, ("bayesdual", "algorithm", "posterior", "curvature"), posterior["curvature"])
    return Opened(Model(label, weights, diagonal), float(posterior["prior_precision"]), "checkpoint", path)


def _of_torch(path: Path, keys: tuple[str, ...], tensors: Mapping[str, Tensor], prefix: str = "") -> Mapped:
    """The tensors of a dictionary inside of others."""

    def open_tensors(path: Path) -> Tensors:
        content: Any = _load(path)
        for key in keys:
            content = content[key]
        return content.__getitem__

    names = {name: prefix + name for name in tensors}
    return Mapped(path, open_tensors, names, {name: value.shape for name, value in tensors.items()})


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged or hostile file makes of it
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{path} holds no tensors that can be read without executing code ({reason}).") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a dictionary of tensors: save model.state_dict().")
    return content


# ---- Writing -----------------------------------------------------------------------------------------------


def write_tensors(
    path: Path, tensors: Iterable[tuple[str, Tensor]], names: Iterable[str], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file, each tensor as it comes, so that one is in memory at a time.

    Room for the header is left at the beginning, and what of it is not needed is filled with blanks, as the format
    allows.

    Args:
        path: The file.
        tensors: Names and tensors.
        names: All the names, in any order.
        metadata: Of the header.

    Raises:
        ValueError: A tensor has a type that is not written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    room = len(json.dumps(header)) + sum(len(json.dumps(name)) + 256 for name in names)
    start = 8 + room + -room % 8
    with open(path, "wb") as file:
        file.seek(start)
        for name, tensor in tensors:
            if tensor.dtype not in DTYPES:
                raise ValueError(f"{name!r} has type {tensor.dtype}, which is not merged: convert it before.")
            begin = file.tell() - start
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            header[name] = {
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [begin, file.tell() - start],
            }
        file.seek(0)
        file.write((start - 8).to_bytes(8, "little") + json.dumps(header).encode().ljust(start - 8))
