"""A benchmark seen through a frozen backbone: what is kept, when it is computed again, and what cannot be."""

import pytest
import torch
from torch import nn

from bayesdual.scenarios import RawDataset, features_of, split_benchmark


class Backbone(nn.Module):
    """Two layers with a batch norm and dropout, which must not be in train mode."""

    def __init__(self, width=6, gain=1.0):
        super().__init__()
        torch.manual_seed(3)
        self.gain = gain
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.BatchNorm1d(width), nn.Dropout(0.5))
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return self.layers(self.gain * x.float())


def source(n=60):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(256, (n, 1, 4, 3), generator=g, dtype=torch.uint8), torch.arange(n) % 4
    return RawDataset("noise", x, y, x[:20].flip(2), y[:20], (0.5,), (0.2,), ("a", "b", "c", "d"))


def images(**settings):
    return split_benchmark(source(), 2, **settings)


def test_experiences_are_those_of_the_benchmark_by_their_features(tmp_path):
    backbone, plain = Backbone(), images(validation=0.2)
    benchmark = features_of(plain, backbone, tmp_path, standardise=False)
    assert benchmark.class_names == plain.class_names and benchmark.n_classes_per_exp == [2, 2]
    backbone.eval()
    for name in ("train_stream", "valid_stream", "test_stream"):
        for mine, other in zip(getattr(benchmark, name), getattr(plain, name), strict=True):
            data, raw = mine.tensors(), other.tensors()
            assert torch.equal(data.y, raw.y) and torch.equal(data.index, raw.index) and data.mean == ()
            torch.testing.assert_close(data.x, backbone(raw.x).detach(), rtol=1e-3, atol=0.2)
            assert torch.equal(mine.dataset[0][0], data.x[0]) and data.origin.startswith("Backbone-")


def test_features_are_computed_once_whatever_the_order_and_split(tmp_path):
    features_of(images(), Backbone(), tmp_path)
    again = Backbone()
    features_of(lambda: images(class_order=[3, 1, 0, 2], validation=0.3), again, tmp_path)
    assert not again.seen and len(list(tmp_path.iterdir())) == 2  # of the training and the test images


@pytest.mark.parametrize("change", ["weight", "attribute", "buffer"])
def test_a_backbone_that_has_changed_has_other_features(change, tmp_path):
    first = features_of(images(), Backbone(), tmp_path, standardise=False)
    other = Backbone(gain=2.0 if change == "attribute" else 1.0)
    with torch.no_grad():
        if change != "attribute":
            (other.layers[1].weight if change == "weight" else other.layers[2].running_mean)[0] += 0.5
    second = features_of(images(), other, tmp_path, standardise=False)
    a, b = (benchmark.train_stream[0].tensors() for benchmark in (first, second))
    assert other.seen and a.origin != b.origin and not torch.equal(a.x, b.x)


def test_features_are_standardised_by_the_first_experience_and_further_inputs_as_they_are(tmp_path):
    benchmark = features_of(images(), Backbone(), tmp_path)
    first = benchmark.train_stream[0].tensors().x
    torch.testing.assert_close(first.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(first.std(0, correction=0), torch.ones(6), atol=1e-4, rtol=0)
    x = images().test_stream[1].tensors().x
    torch.testing.assert_close(benchmark.encoding(x), benchmark.test_stream[1].tensors().x, atol=2e-3, rtol=0)


def test_fewer_examples_of_each_class(tmp_path):
    few, others = (features_of(images(), Backbone(), tmp_path, examples_per_class=5, seed=seed) for seed in (0, 1))
    for experience in few.train_stream:
        assert experience.tensors().y.unique(return_counts=True)[1].tolist() == [5, 5]
    a, b = (set(benchmark.train_stream[0].tensors().index.tolist()) for benchmark in (few, others))
    assert a != b
    assert len(few.test_stream[0].dataset) == 10
    with pytest.raises(ValueError, match="examples_per_class is 0"):
        features_of(images(), Backbone(), tmp_path, examples_per_class=0)


def test_a_part_for_validation(tmp_path):
    benchmark = features_of(images(), Backbone(), tmp_path, examples_per_class=10, validation=0.2)
    for train, valid in zip(benchmark.train_stream, benchmark.valid_stream, strict=True):
        data, held = train.tensors(), valid.tensors()
        assert data.y.unique(return_counts=True)[1].tolist() == [8, 8] and len(held) == 4
        assert not set(data.index.tolist()) & set(held.index.tolist())


def test_what_gives_no_features_is_refused_and_nothing_is_left_behind(tmp_path):
    folder = tmp_path / "features"
    for module, sentence in (
        (nn.Flatten(0), "gives (.*) for inputs of shape"),
        (nn.Conv2d(1, 1, 1), "."),
        (Broken(), "infinite, not numbers, or above 65,504"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=sentence):
            features_of(images(), module, folder)
    assert not folder.exists()
    with pytest.raises(ValueError, match="takes a benchmark that holds its inputs as tensors"):
        features_of(lambda: 3, Backbone(), folder)


class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1).float() * 1e6


def test_a_damaged_file_is_refused(tmp_path):
    features_of(images(), Backbone(), tmp_path)
    path = next(tmp_path.iterdir())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        features_of(images(), Backbone(), tmp_path)
