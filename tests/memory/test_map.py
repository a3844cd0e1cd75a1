"""The memory map is read off the pass that scored, and knows what the memory made of it."""

from dataclasses import fields

import pytest
import torch

from bayesdual.likelihoods import Gaussian
from bayesdual.memory import Exemplars, MemoryMap, map_memory
from bayesdual.posterior import Scored
from bayesdual.stream import TensorData
from bayesdual.tensor_files import write_tensors


def kept(*keys):
    """Exemplars by class, experience and position in the source dataset."""
    y, experience, index = torch.tensor(keys).T
    n = len(keys)
    one = torch.ones(n)
    return Exemplars(torch.zeros(n, 2), y, torch.zeros_like(y), torch.zeros(n, 3), one, one, experience, index)


@pytest.fixture
def mapped():
    data = TensorData(
        torch.arange(10.0).view(5, 2), torch.tensor([1, 2, 1, 2, 1]), torch.zeros(5).long(), 10 + torch.arange(5)
    )
    p = torch.tensor([[0.1, 0.6, 0.3], [0.0, 0.1, 0.9], [0.5, 0.25, 0.25]])
    known = Scored(p.log().clamp_min(-1e4), torch.zeros(3, 2), torch.tensor([0.5, 0.1, 2.0]))
    before = kept((0, 0, 10), (0, 0, 11), (1, 0, 12))
    after = kept((0, 0, 11), (1, 0, 12), (1, 1, 10), (2, 1, 13))
    return map_memory(data, torch.tensor([0, 1, 4]), known, 1, before, after)


def test_residuals_and_leverages_are_those_of_the_examples(mapped):
    assert mapped.residuals.tolist() == pytest.approx([0.4, 0.1, 0.75], abs=1e-6)
    assert mapped.leverages.tolist() == pytest.approx([0.5, 0.1, 2.0])
    assert mapped.y.tolist() == [1, 2, 1] and mapped.index.tolist() == [10, 11, 14]
    assert mapped.extremes.tolist() == [2, 0, 1, 2, 0, 1], "the highest first"
    assert mapped.x[0].tolist() == [8, 9] and len(mapped.x) == 6


def test_kept_are_those_of_this_experience_and_changes_are_counted_by_class(mapped):
    assert mapped.kept.tolist() == [True, False, False], "the 11 in the memory is of another experience"
    assert mapped.changes.tolist() == [[0, 0, 1], [1, 1, 0], [2, 1, 0]]


def test_of_numbers_the_residual_is_how_far_off_the_prediction_is():
    gaussian = Gaussian()
    y = torch.tensor([1.0, 2.0, 4.0])
    data = TensorData(torch.zeros(3, 2), y, torch.zeros(3).long(), torch.arange(3))
    f = torch.tensor([[1.5], [2.0], [1.0]])
    mapped = map_memory(data, torch.arange(3), Scored(f, f, torch.ones(3)), 0, None, None, gaussian)
    assert mapped.residuals.tolist() == pytest.approx(gaussian.residual(f, y).abs().squeeze(1).tolist())
    assert mapped.residuals[2] > mapped.residuals[0] > mapped.residuals[1] == 0 and len(mapped.changes) == 0


def test_a_map_is_saved_and_anything_else_is_refused(mapped, tmp_path):
    mapped.save(tmp_path / "map.safetensors")
    back = MemoryMap.load(tmp_path / "map.safetensors")
    assert all(torch.equal(getattr(back, f.name), getattr(mapped, f.name)) for f in fields(MemoryMap))
    write_tensors(tmp_path / "other.safetensors", {"y": torch.zeros(1)}, {"format": "bayesdual-memory-1"})
    with pytest.raises(ValueError, match="other.safetensors is no memory map, or of another version: delete it."):
        MemoryMap.load(tmp_path / "other.safetensors")
