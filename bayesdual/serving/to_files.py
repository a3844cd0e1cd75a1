"""A predictor as files that others read: torch.export, safetensors with JSON, ONNX."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bayesdual.extras import require
from bayesdual.files import write_json, write_whole
from bayesdual.prediction import logits_of
from bayesdual.serving.predictor import Predictor
from bayesdual.tensor_files import write_tensors


class Probabilities(nn.Module):
    """Raw inputs (B, ...) to class probabilities (B, C), by the mean of the weights.

    Args:
        predictor: Of a stream without task labels.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.network = predictor.network
        self._inputs = predictor.inputs

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self._inputs.mean, self._inputs.std
        if x.dtype == torch.uint8 and mean:
            of_channels = (-1, *[1] * (x.dim() - 2))
            x = (x.float() / 255 - torch.tensor(mean).view(of_channels)) / torch.tensor(std).view(of_channels)
        return logits_of(self.network(x)).softmax(1)


def export(predictor: Predictor, path: str | Path) -> None:
    """Writes a predictor to a file, of the kind that its ending names.

    Args:
        predictor: What to write.
        path: ``.pt2``: a program of ``torch.export``, raw inputs to probabilities, any number of them at once.
            ``.onnx``: the same for ONNX. ``.safetensors``: the network's tensors, and beside it, as ``.json``, what
            inputs are like, tasks and class names.

    Raises:
        MissingExtra: ``.onnx`` needs what is not installed.
        ValueError: The ending is another, or a program is asked of a stream with task labels or inputs of parts.
    """
    path = Path(path)
    kinds: dict[str, Callable[[Predictor, Path], None]] = {
        ".pt2": _as_program,
        ".onnx": _as_onnx,
        ".safetensors": _as_tensors,
    }
    if path.suffix not in kinds:
        raise ValueError(f"{path} has none of the endings {', '.join(kinds)}: give one of these.")
    if predictor.needs_tasks and path.suffix != ".safetensors":
        raise ValueError(f"{path.suffix} takes inputs alone, and this stream has task labels: export .safetensors.")
    if predictor.inputs.parts is not None and path.suffix != ".safetensors":
        raise ValueError(
            f"{path.suffix} takes one tensor, and the inputs are {predictor.inputs.parts}: export .safetensors."
        )
    kinds[path.suffix](predictor, path)


def _example(predictor: Predictor) -> Tensor:
    return torch.zeros(2, *predictor.inputs.shape, dtype=getattr(torch, predictor.inputs.dtype))


def _as_program(predictor: Predictor, path: Path) -> None:
    any_number = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Probabilities(predictor).eval(), (_example(predictor),), dynamic_shapes=any_number)
    about = {"about.json": json.dumps(_about(predictor))}
    write_whole(path, lambda temporary: torch.export.save(program, temporary, extra_files=about))


def _as_onnx(predictor: Predictor, path: Path) -> None:
    require("an export as .onnx", "onnx")
    any_number = {"x": {0: torch.export.Dim("batch")}}
    program = torch.onnx.export(
        Probabilities(predictor).eval(), (_example(predictor),), dynamo=True, dynamic_shapes=any_number, verbose=False
    )
    assert program is not None, "it is given no file"
    write_whole(path, program.save)


def _as_tensors(predictor: Predictor, path: Path) -> None:
    write_tensors(path, predictor.network.state_dict(), {"format": "bayesdual-network-1"})
    write_json(path.with_suffix(".json"), _about(predictor))


def _about(predictor: Predictor) -> dict[str, object]:
    tasks = predictor.tasks
    return {
        "inputs": predictor.inputs.state_dict(),
        "tasks": None if tasks is None else [row.nonzero().flatten().tolist() for row in tasks],
        "classes": list(predictor.classes),
    }
