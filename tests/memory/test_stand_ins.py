"""What a memory says of the past's inputs: moments, weights, and the types that networks take."""

import torch

from bayesdual.memory import Exemplars, Memory, stand_ins

MEAN, STD = (0.4,), (0.25,)


def memory_of(x, spread=None):
    n = len(x)
    zeros = torch.zeros(n, dtype=torch.int64)
    memory = Memory(n)
    weights = torch.linspace(1, 9, n)
    z = Exemplars(x, zeros, torch.arange(n), torch.zeros(n, 2), weights, torch.zeros(n), zeros, zeros)
    counts = [[0, 0, round(float(weights.sum()))]]
    memory.load_state_dict({"budget": n, "counts": counts, "exemplars": z.tensors()})
    if spread is not None:
        memory.spread.add(spread, torch.Generator().manual_seed(3))
    return memory


def generator():
    return torch.Generator().manual_seed(0)


def test_around_vectors_there_is_the_whole_spread_neither_rounded_nor_clamped():
    x = torch.zeros(4, 1, 1, 2, dtype=torch.uint8)  # black
    x[:, 0, 0, 1] = torch.tensor([50, 100, 150, 200], dtype=torch.uint8)
    deviations = torch.tensor([[30.0, 20.0], [30.0, -20.0]]) * 10**0.5  # of 20 examples: variances 900 and 400
    past = stand_ins(memory_of(x, deviations), MEAN, STD, generator())
    assert past.inputs.shape == (1600, 1, 1, 2) and past.inputs.dtype == torch.float32
    levels = (past.inputs * 0.25 + 0.4).mul(255).view(400, 4, 2)
    centred = (levels - x.view(1, 4, 2)).reshape(-1, 2)
    assert centred.mean(0).abs().max() < 3
    torch.testing.assert_close(centred.square().mean(0), torch.tensor([900.0, 400.0]), rtol=0.25, atol=0)
    assert (levels < 0).any() and (levels != levels.round()).any()
    torch.testing.assert_close(past.weights.view(400, 4).sum(0), torch.linspace(1, 9, 4))
    assert past.tasks[:5].tolist() == [0, 1, 2, 3, 0]


def test_images_as_they_were_are_rolled():
    x = torch.randint(256, (500, 2, 4, 5), generator=generator()).to(torch.uint8)
    past = stand_ins(memory_of(x), (), (), generator())
    assert past.inputs.shape == (2000, 2, 4, 5) and past.inputs.dtype == torch.uint8
    all_rolls = {(a, b): torch.roll(x, (a, b), (2, 3)) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    counts = {steps: int((past.inputs[:500] == images).flatten(1).all(1).sum()) for steps, images in all_rolls.items()}
    assert sum(counts.values()) == 500 and min(counts.values()) > 30
    torch.testing.assert_close(past.weights[:500], torch.linspace(1, 9, 500) / 4)
    normalised = stand_ins(memory_of(x[:, :1]), MEAN, STD, generator()).inputs
    assert normalised.dtype == torch.float32 and normalised.min() >= -1.61 and normalised.max() <= 2.41


def test_some_of_many_exemplars_stand_for_all_as_often_as_they_should():
    x = torch.arange(5000).view(5000, 1, 1, 1).expand(-1, 1, 1, 2).div(5000).contiguous()
    past = stand_ins(memory_of(x), (), (), generator())
    assert len(past.inputs) == 4000
    w = torch.linspace(1, 9, 5000)
    assert float(past.weights.sum()) == round(float(w.sum())) and len(past.weights.unique()) == 1
    assert abs(float(past.inputs[:, 0].mean()) - float(w @ x[:, 0, 0, 0] / w.sum())) < 0.01


def test_other_inputs_stand_once_and_as_they_are_and_an_empty_memory_for_nothing():
    tokens = torch.randint(9, (6, 5))
    past = stand_ins(memory_of(tokens), (), (), generator())
    assert torch.equal(past.inputs, tokens) and torch.equal(past.weights, torch.linspace(1, 9, 6))
    assert stand_ins(Memory(5), MEAN, STD, generator()) is None


def test_networks_that_take_grey_levels_in_bytes_get_these():
    x = torch.full((4, 1, 1, 2), 250, dtype=torch.uint8)
    past = stand_ins(memory_of(x, 100 * torch.ones(1, 2)), (), (), generator())
    assert past.inputs.dtype == torch.uint8 and int(past.inputs.max()) == 255 and int(past.inputs.min()) > 100
