"""Tensors in files: what was written is read, and any damage is seen."""

import json
import random

import pytest
import torch
from safetensors.torch import save_file

from bayesdual.memory import Exemplars, Memory
from bayesdual.tensor_files import checksum, read_tensors, write_tensors

TENSORS = {"x": torch.arange(12.0).view(3, 4), "n": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)}


def test_what_was_written_is_read_and_files_without_a_checksum_too(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {"format": "some"})
    tensors, header = read_tensors(path, "some")
    assert header == {"format": "some"} and all(torch.equal(tensors[k], v) for k, v in TENSORS.items())
    save_file(TENSORS, path, {"format": "some"})
    assert read_tensors(path, "some")[1] == {"format": "some"}


def test_the_checksum_knows_names_shapes_types_values_and_the_header():
    x = torch.arange(4.0)
    others = [{"x": x}, {"y": x}, {"x": x.view(2, 2)}, {"x": x.view(torch.int32)}, {"x": -x}]
    assert len({checksum({"x": x}, {"a": "1"}), *(checksum(other, {}) for other in others)}) == 6
    assert checksum({"x": x, "y": x}, {}) == checksum({"y": x, "x": x}, {})


def test_every_damaged_memory_file_is_refused(tmp_path):
    memory = Memory(4)
    y, zeros = torch.arange(4), torch.zeros(4)
    numbers = [y.clone() for _ in range(3)]
    exemplars = Exemplars(torch.randn(4, 3), y, numbers[0], torch.randn(4, 4), torch.ones(4), zeros, *numbers[1:])
    memory.load_state_dict({"budget": 4, "counts": [[c, 0, 1] for c in range(4)], "exemplars": exemplars.tensors()})
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    assert len(Memory.load(path)) == 4
    content, draw = path.read_bytes(), random.Random(0)
    for _ in range(200):
        place = draw.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :])
        try:
            again = Memory.load(path)
        except (ValueError, UnicodeDecodeError):
            continue
        assert json.loads(json.dumps(again.state_dict()["counts"])) == [[c, 0, 1] for c in range(4)]
        assert all(torch.equal(v, exemplars.tensors()[k]) for k, v in again.exemplars.tensors().items())
    path.write_bytes(content[:-3])
    with pytest.raises(ValueError, match="is not a memory file, or is damaged"):
        Memory.load(path)
