"""A budget in bytes: what is carried fits, comes back from its file, and is all that the next experience needs."""

import copy
from dataclasses import replace

import pytest
import torch

from bayesdual.algorithm import BayesDual
from bayesdual.memory import CosineSpread, Exemplars, Memory, pack, unpack
from bayesdual.models import MLP
from bayesdual.stream import TensorData
from tests.memory.test_codec import images


def experience(classes, seed, n=150):
    x, _, _ = images(n, seed=seed)
    y = torch.tensor(classes).repeat(n)[:n]
    return TensorData(x, y, torch.zeros_like(y), torch.arange(n), (0.5,), (0.25,))


def floats(classes, seed, n=150):
    y = torch.tensor(classes).repeat(n)[:n]
    x = torch.randn(n, 30, generator=torch.Generator().manual_seed(seed)) + y[:, None]
    return TensorData(x, y, torch.zeros_like(y), torch.arange(n))


def learned(data, size, **settings):
    torch.manual_seed(0)
    network, algorithm = MLP(size, (16,), 6).eval(), BayesDual(**settings)

    def predict(x, tasks):
        return network(x.float() / 255 if x.dtype == torch.uint8 else x)

    for i, one in enumerate(data):
        algorithm.end_experience(network, predict, one, i)
    return algorithm, network, predict


def of_images(**settings):
    return learned([experience([2 * i, 2 * i + 1], i) for i in range(3)], 120, **settings)


@pytest.mark.parametrize("limit", [1600, 2400, 3600])
def test_all_that_is_carried_fits_and_more_bytes_hold_more(limit):
    algorithm, _, _ = of_images(memory_bytes=limit)
    parts = algorithm.memory_bytes()
    assert set(parts) == {"inputs", "labels", "weights", "counts", "spread"}
    assert 0.7 * limit < sum(parts.values()) <= limit or len(algorithm.memory) == 450
    assert algorithm.memory.exemplars.y.bincount().min() > 0
    assert float(algorithm.memory.exemplars.weights.sum()) == pytest.approx(450, rel=1e-3)
    fewer, _, _ = of_images(memory_bytes=limit // 2)
    assert len(fewer.memory) < len(algorithm.memory)


def test_coded_images_are_more_than_images_as_they_are_would_be():
    algorithm, _, _ = of_images(memory_bytes=2400)
    assert len(algorithm.memory) > 1.5 * 2400 / 120


def test_floating_inputs_are_kept_in_half_precision():
    data = [floats([2 * i, 2 * i + 1], i) for i in range(3)]
    algorithm, _, _ = learned(data, 30, memory_bytes=4000, condensation=None)
    z = algorithm.memory.exemplars
    assert sum(algorithm.memory_bytes().values()) <= 4000 and len(z) > 40
    every = torch.cat([one.x for one in data])
    distance = torch.cdist(z.x, every).min(1).values
    assert z.x.dtype == torch.float32 and 0 < distance.max() < 0.02


@pytest.mark.parametrize(("largest", "smallest"), [(30_000, torch.int16), (50_000, torch.int32), (2**40, torch.int64)])
def test_tokens_come_back_from_the_smallest_integers_that_hold_them(largest, smallest):
    x = torch.randint(largest, (200, 8), generator=torch.Generator().manual_seed(0))
    x[0, 0], y = largest - 1, torch.zeros(200, dtype=torch.int64)
    z = Exemplars(x, y, y, torch.zeros(200, 0), torch.ones(200), torch.zeros(200), y, y)
    packed = pack(z, {(0, 0): 200})
    back = unpack(packed)[0].x
    assert back.dtype == x.dtype and torch.equal(back, x)
    assert len(packed["inputs"]) < 1.05 * x.numel() * smallest.itemsize
    narrow = pack(replace(z, x=x.to(smallest)), {(0, 0): 200})
    assert len(narrow["inputs"]) == len(packed["inputs"]) and unpack(narrow)[0].x.dtype == smallest
    with pytest.raises(ValueError, match="damaged"):
        unpack({**packed, "inputs": packed["inputs"][:-3]})


def test_what_is_packed_comes_back():
    x, y, w = images(40)
    zeros = torch.zeros_like(y)
    z = Exemplars(x, y, zeros + 2, torch.zeros(40, 3), w, w, zeros + 7, zeros)
    counts = {(0, 1): 30, (2, 7): 5000}
    back, seen = unpack(pack(z, counts, step=1.0))
    assert seen == counts and back.logits.shape == (40, 0)
    assert (back.x.int() - x.int()).abs().max() <= 3
    for name in ("y", "tasks", "experience"):
        assert torch.equal(getattr(back, name), getattr(z, name))
    torch.testing.assert_close(back.weights, w, rtol=1e-3, atol=0)
    packed = pack(z, counts)
    for name in ("labels", "weights", "inputs"):
        with pytest.raises(ValueError, match="damaged"):
            unpack({**packed, name: packed[name][:-3]})


def test_a_checkpoint_and_a_file_hold_the_same_memory(tmp_path):
    algorithm, _, _ = of_images(memory_bytes=2400)
    other = BayesDual(memory_bytes=2400)
    state = algorithm.state_dict()
    torch.save(state, tmp_path / "state")
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert other.memory_bytes() == algorithm.memory_bytes()
    a, b = algorithm.replay(), other.replay()
    assert torch.equal(a.x, b.x) and torch.equal(a.logits, b.logits)
    algorithm.memory.save(tmp_path / "memory.safetensors")
    assert (tmp_path / "memory.safetensors").stat().st_size < 2400 + 1500  # and its header
    loaded = Memory.load(tmp_path / "memory.safetensors")
    assert torch.equal(loaded.exemplars.x, algorithm.memory.exemplars.x) and loaded.counts == algorithm.memory.counts
    assert torch.equal(loaded.draw(8, torch.Generator(), 1.0).x, algorithm.memory.draw(8, torch.Generator(), 1.0).x)
    with pytest.raises(ValueError, match="give the same memory_bytes"):
        BayesDual(memory_bytes=7000).load_state_dict(state)
    with pytest.raises(ValueError, match="give the same memory_bytes"):
        BayesDual(memory_size=60).load_state_dict(state)


def test_soft_labels_follow_from_the_file_and_the_network(tmp_path):
    """They are not among the bytes, so they must not be needed."""
    algorithm, _, predict = of_images(memory_bytes=2400, spread=0)
    algorithm.memory.save(tmp_path / "memory.safetensors")
    loaded = Memory.load(tmp_path / "memory.safetensors")
    with torch.no_grad():
        loaded.relabel(predict, 3.0, torch.Generator())
    torch.testing.assert_close(loaded.exemplars.logits, algorithm.memory.exemplars.logits)


def test_budgets_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"holds \d exemplars, but there are 2 classes: give at least \d+"):
        of_images(memory_bytes=300)
    with pytest.raises(ValueError, match="memory_size is 10 and memory_bytes is 5000: give one of them"):
        BayesDual(memory_size=10, memory_bytes=5000)
    with pytest.raises(ValueError, match="memory_bytes is 0"):
        BayesDual(memory_bytes=0)


def test_with_a_number_of_exemplars_every_tensor_is_counted():
    algorithm, _, _ = of_images(memory_size=12)
    parts, state = algorithm.memory_bytes(), algorithm.state_dict()
    z = algorithm.memory.exemplars
    assert parts["inputs"] == 12 * 120 and parts["labels"] == 12 * 8 and parts["soft_labels"] == 12 * 6 * 4
    assert sum(v for k, v in parts.items() if k not in ("spread", "prior")) == sum(
        t.nbytes for t in z.tensors().values()
    )
    assert parts["spread"] == state["memory"]["spread"]["draws"].nbytes


def test_the_spread_in_the_cosine_basis_has_the_variances_of_what_was_lost():
    x = images(4000)[0].float()
    deviations, spread = x - x.mean(0), CosineSpread()
    for part in deviations.split(1000):
        spread.add(part)
    assert spread.nbytes == 2 * 120
    noise = spread.around(torch.zeros(20_000, 1, 12, 10), len(x), 0.5, torch.Generator().manual_seed(0))
    from bayesdual.memory.codec import coefficients

    own, lost = (coefficients(t).flatten(1).var(0) for t in (noise, deviations))
    torch.testing.assert_close(own, 0.25 * lost, rtol=0.08, atol=1e-3)
    again = CosineSpread()
    again.load_state_dict(copy.deepcopy(spread.state_dict()))
    assert torch.equal(*(s.around(x[:9], 9, 1.0, torch.Generator().manual_seed(1)) for s in (spread, again)))
    with pytest.raises(ValueError, match="infinite"):
        CosineSpread().add(torch.full((1, 2), torch.inf))
