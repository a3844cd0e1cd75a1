"""Streams of inputs that are dicts or tuples: learned, remembered whole, evaluated, served; `.logits` are logits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bayesdual.learner import StreamDataModule
from bayesdual.models import MLP
from bayesdual.serving import export, load, read_inputs
from bayesdual.stream import Inputs
from tests.learner.test_learner import adam, fit, fit_data, ivon, learner
from tests.streams import of_datasets

LENGTH, WORDS = 5, 12
PLAIN = {"condensation": None, "spread": 0}


class Text(nn.Module):
    """The mean embedding of the tokens that the mask leaves, as a language model would have it."""

    def __init__(self, wrap=lambda logits: SimpleNamespace(logits=logits)):
        super().__init__()
        self.embedding, self.head, self.wrap = nn.Embedding(WORDS, 16), nn.Linear(16, 6), wrap

    def forward(self, input_ids, attention_mask=None):
        assert input_ids.dtype == torch.int64 and attention_mask.dtype == torch.bool
        weights = attention_mask.float()[..., None]
        return self.wrap(self.head((self.embedding(input_ids) * weights).sum(1) / weights.sum(1)))


def sentences(classes, n, seed):
    """Sentences of a class are full of its two words; what the mask hides is full of another's."""
    draw = torch.Generator().manual_seed(seed)
    items, labels = [], []
    for label in classes:
        for _ in range(n):
            mask = torch.rand(LENGTH, generator=draw) < 0.7
            mask[0] = True
            own = 2 * label + torch.randint(2, (LENGTH,), generator=draw)
            other = torch.randint(WORDS, (LENGTH,), generator=draw)
            items.append({"attention_mask": mask, "input_ids": torch.where(mask, own, other)})
            labels.append(label)
    return items, labels


def texts():
    streams = [[sentences((2 * i, 2 * i + 1), 30, seed + i) for i in range(3)] for seed in (0, 100)]
    return of_datasets(*streams)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    benchmark, model = texts(), learner(Text(), adam, memory_size=18, **PLAIN)
    return folder, benchmark, model, fit(model, benchmark, folder, epochs=8)


def test_tokens_with_masks_are_learned(learned):
    *_, results = learned
    assert results["average_accuracy"] > 0.9


def test_the_memory_keeps_tokens_and_masks_whole(learned):
    _, benchmark, model, _ = learned
    z, parts = model.algorithm.memory.exemplars, model._inputs.parts
    kept = parts.unpacked(z.x)
    for i, (experience, index) in enumerate(zip(z.experience.tolist(), z.index.tolist(), strict=True)):
        item = benchmark.train_stream[experience].dataset[index][0]
        assert all(torch.equal(kept[key][i], item[key]) for key in ("input_ids", "attention_mask"))
    assert not kept["attention_mask"].all() and len(z) == 18


def test_a_run_on_texts_goes_on_to_the_bit(learned, tmp_path):
    folder, benchmark, model, results = learned
    again = learner(Text(), adam, memory_size=18, **PLAIN, seed=5)
    resumed = fit(again, benchmark, tmp_path, epochs=8, ckpt_path=folder / "checkpoints/experience_2.ckpt")
    assert resumed["accuracy_matrix"] == results["accuracy_matrix"]
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_run_on_texts_is_served(learned, tmp_path):
    folder, benchmark, model, results = learned
    predictor = load(folder / "checkpoints/last.ckpt", network=Text())
    items, labels = sentences((0, 1, 2, 3, 4, 5), 30, 7)
    whole = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    said = predictor.predict(whole)
    assert np.mean([a == b for a, b in zip(said, labels, strict=True)]) > 0.9
    np.savez(tmp_path / "a.npz", id=range(len(labels)), **{key: part.numpy() for key, part in whole.items()})
    assert predictor.predict(read_inputs(tmp_path / "a.npz", predictor.inputs).x) == said
    with pytest.raises(ValueError, match="a.npz: .*int64.* give a dict of attention_mask: bool"):
        np.savez(tmp_path / "a.npz", **{key: part.long().numpy() for key, part in whole.items()})
        read_inputs(tmp_path / "a.npz", predictor.inputs)
    with pytest.raises(ValueError, match="a.csv cannot hold what was learned, a dict of attention_mask"):
        (tmp_path / "a.csv").write_text("a\n1\n")
        read_inputs(tmp_path / "a.csv", predictor.inputs)
    with pytest.raises(ValueError, match=".pt2 takes one tensor, and the inputs are a dict of"):
        export(predictor, tmp_path / "a.pt2")


def halves(make):
    """Inputs of 16 numbers, as they are given by ``make``, from two halves."""
    draw = torch.Generator().manual_seed(0)
    y = [0, 1] * 20
    x = torch.randn(40, 16, generator=draw) + torch.tensor(y)[:, None]
    parts = [([make(row[:8], row[8:]) for row in x], y), ([make(row[8:], row[:8]) for row in x], [v + 2 for v in y])]
    return of_datasets(parts, parts)


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = MLP(16, (32,), 6)


class OfOne(Joined):
    def forward(self, x):
        return self.mlp(torch.cat(list(x.values()) if isinstance(x, dict) else list(x), 1))


class OfBoth(Joined):
    def forward(self, b, a, scale=1.0):
        return {"logits": self.mlp(torch.cat([a, b], 1)), "scale": scale}


class Whole(Joined):
    def forward(self, x):
        return self.mlp(x)


@pytest.mark.parametrize(
    ("make", "network"),
    [
        (lambda a, b: {"a": a, "b": b}, OfOne),
        (lambda a, b: {"b": b, "a": a}, OfBoth),
        (lambda a, b: (a, b), OfOne),
        (lambda a, b: [b, a], OfBoth),
    ],
)
def test_parts_are_learned_as_one_tensor_would_be(make, network):
    models = []
    for kind, one in ((Whole, lambda a, b: torch.cat([a, b])), (network, make)):
        models.append(learner(torch.manual_seed(0) and kind(), **PLAIN))
        fit_data(models[-1], StreamDataModule(halves(one), epochs=2, batch_size=16))
    assert all(torch.equal(v, models[1].state_dict()[k]) for k, v in models[0].state_dict().items())
    assert models[0].history.accuracy == models[1].history.accuracy


@pytest.mark.parametrize("network", [Whole, lambda: MLP(16, (32,), 6)])
def test_a_network_that_does_not_take_the_parts_is_refused(network):
    with pytest.raises(ValueError, match=r"does not take the inputs of data.benchmark, a dict of a: float32 \(8,\)"):
        fit_data(learner(network(), ivon), StreamDataModule(halves(lambda a, b: {"a": a, "b": b}), batch_size=16))


def test_inputs_of_one_tensor_say_so():
    assert str(Inputs((3, 4), "float32")) == "of shape (3, 4)"
