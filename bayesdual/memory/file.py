"""The file of a memory: one safetensors file, whose JSON header holds budget and counts.

With a budget in bytes it is the packed memory (``packing.py``), which soft labels are not in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesdual.memory.packing import Packed, unpack
from bayesdual.tensor_files import read_tensors, write_tensors

FORMAT = "bayesdual-memory-1"
PACKED_FORMAT = "bayesdual-memory-2"


def save(state: Mapping[str, Any], path: str | Path) -> None:
    """Writes the state of a memory, as its ``state_dict`` gives it."""
    plain = {k: state[k] for k in ("budget", "counts", "max_bytes") if k in state}
    if "packed" not in state:
        return write_tensors(path, state["exemplars"] or {}, {"format": FORMAT, "memory": json.dumps(plain)})
    parts = {name: part for name, part in state["spread"].items() if part is not None}
    tensors = state["packed"] | {"spread" if name == "sum" else f"spread.{name}": part for name, part in parts.items()}
    write_tensors(path, tensors, {"format": PACKED_FORMAT, "memory": json.dumps(plain)})


def load(path: str | Path) -> dict[str, Any]:
    """Reads a state that ``Memory.load_state_dict`` takes; executes nothing from the file.

    Raises:
        ValueError: The file is not a memory.
    """
    tensors, header = read_tensors(path, "memory")
    if header.get("format") not in (FORMAT, PACKED_FORMAT):
        raise ValueError(f"{path} is not a memory file: its header does not say {FORMAT} or {PACKED_FORMAT}.")
    state = json.loads(header["memory"])
    if header["format"] == FORMAT:
        return state | {"exemplars": tensors or None}
    parts = {name: tensors.pop(name) for name in list(tensors) if name.startswith("spread.")}
    spread: dict[str, Any] = {name.removeprefix("spread."): part for name, part in parts.items()}
    spread = spread or {"sum": tensors.pop("spread", None)}
    known = unpack(as_bytes(tensors))[0].tensors() if tensors else None
    return state | {"spread": spread, "packed": tensors, "exemplars": known}


def as_tensors(packed: Packed) -> dict[str, Tensor]:
    """Packed parts as uint8 tensors."""
    return {name: torch.frombuffer(bytearray(part), dtype=torch.uint8) for name, part in packed.items()}


def as_bytes(tensors: Mapping[str, Tensor]) -> Packed:
    """Packed parts, of uint8 tensors."""
    return {name: tensor.cpu().numpy().tobytes() for name, tensor in tensors.items()}
