"""Inputs to predict from files: arrays, tables and images, in the form that was learned."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdual.stream import Inputs, refuse_not_finite

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Rows:
    """Inputs with their names.

    Attributes:
        ids: A name for each.
        x: Shape (N, ...); of inputs that are dicts, each part of this shape, by name.
        tasks: Their task labels, shape (N,), where the file has them.
    """

    ids: Sequence[Any]
    x: Tensor | dict[str, Tensor]
    tasks: Tensor | None = None


def read_inputs(path: str | Path, inputs: Inputs) -> Rows:
    """Reads inputs; nothing in a file is executed.

    Args:
        path: ``.npz`` with ``x``, or of inputs that are dicts an array for each part, and, if there are such, ``id``
            and ``task``; ``.npy``; ``.csv`` with a line of names, a column for each feature and, if there is one,
            ``id``; or a folder of images.
        inputs: What they have to be like.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or inputs are not like those learned; it says where.
    """
    path = Path(path)
    names = None if inputs.parts is None else inputs.parts.names
    if path.exists() and inputs.parts is not None and (path.suffix != ".npz" or names is None):
        how = "the network" if names is None else "an .npz with these"
        raise ValueError(f"{path} cannot hold what was learned, {inputs.parts}: give {how}.")
    if path.is_dir():
        rows = _images(path, inputs)
    elif not path.is_file():
        raise FileNotFoundError(f"there is no {path}: give a file or a folder of images.")
    elif path.suffix == ".csv":
        rows = _table(path, inputs)
    elif path.suffix in (".npy", ".npz"):
        rows = _arrays(path, names)
    else:
        raise ValueError(f"{path} is none of .npz, .npy, .csv and a folder of images: give one of these.")
    try:
        x = inputs.taken(rows.x)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    refuse_not_finite(x, torch.arange(len(x)), str(path), inputs.parts)
    return rows


def _arrays(path: Path, parts: Sequence[str] | None) -> Rows:
    try:
        held = np.load(path, allow_pickle=False)
        arrays = {"x": held} if isinstance(held, np.ndarray) else {name: held[name] for name in held.files}
        x = {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in parts or ("x",)}
    except KeyError as error:
        name = error.args[0]
        raise ValueError(f"{path} has no array {name}: save it as numpy.savez(path, {name}=...).") from None
    except Exception as error:  # whatever a damaged file makes of it
        raise ValueError(f"{path} cannot be read as an array of numbers ({error}).") from None
    ids, tasks, n = arrays.get("id"), arrays.get("task"), len(next(iter(x.values())))
    for name, column in (("id", ids), ("task", tasks)):
        if column is not None and column.shape != (n,):
            raise ValueError(f"{path}: {name} has shape {column.shape}, but there are {n} inputs: give one for each.")
    return Rows(
        range(n) if ids is None else ids.tolist(),
        x if parts else x["x"],
        None if tasks is None else torch.as_tensor(tasks),
    )


def _table(path: Path, inputs: Inputs) -> Rows:
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = list(csv.reader(file))
    if len(lines) < 2:
        raise ValueError(f"{path} has no rows below a line of names: give some.")
    names = lines[0]
    columns = [i for i, name in enumerate(names) if name != "id"]
    wanted = int(np.prod(inputs.shape))
    if len(columns) != wanted:
        raise ValueError(
            f"{path} has {len(columns)} columns beside id, but an input that was learned has {wanted} numbers."
        )
    x = np.empty((len(lines) - 1, wanted), dtype=np.float64)
    for row, line in enumerate(lines[1:]):
        for place, i in enumerate(columns):
            try:
                x[row, place] = float(line[i])
            except (ValueError, IndexError):
                where = f"row {row + 1}, column {names[i]}"
                raise ValueError(f"{path}: {where} is no number: fill it in, or leave the row out.") from None
    if inputs.dtype == "uint8" and not (np.isin(x, np.arange(256))).all():
        raise ValueError(f"{path} has values that are no whole numbers of 0 to 255, as were learned.")
    shaped = torch.from_numpy(x).to(getattr(torch, inputs.dtype)).reshape(-1, *inputs.shape)
    ids = [line[names.index("id")] for line in lines[1:]] if "id" in names else range(len(x))
    return Rows(ids, shaped)


def _images(folder: Path, inputs: Inputs) -> Rows:
    from PIL import Image  # comes with torchvision

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(IMAGES)}): give a folder that does.")
    if inputs.dtype != "uint8" or len(inputs.shape) != 3 or inputs.shape[0] not in (1, 3):
        raise ValueError(
            f"{folder} holds images, but {inputs.dtype} of shape {inputs.shape} was learned: give an .npz."
        )
    channels, height, width = inputs.shape
    x = torch.empty(len(files), channels, height, width, dtype=torch.uint8)
    for i, file in enumerate(files):
        try:
            with Image.open(file) as image:
                pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
        except OSError as error:
            raise ValueError(f"{file} is no image that can be read ({error}).") from None
        if pixels.shape[:2] != (height, width):
            raise ValueError(
                f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels, but {width} x {height} was learned: "
                "resize it."
            )
        x[i] = torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)
    return Rows([file.name for file in files], x)
