"""Streams of folders of pictures, held or read when they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

from bayesdual import BayesDual, Learner, StreamDataModule
from bayesdual.models import MLP
from bayesdual.scenarios import folder, from_folder

CLASSES = ("apple", "bird", "car", "dog")


def fill(path, n=6, classes=CLASSES, size=(4, 5)):
    """Pictures of one level, by class and number: of class k the i-th is 40 k + i."""
    for k, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(n):
            level = np.full((*size, 3), 40 * k + i, dtype=np.uint8)
            Image.fromarray(level).save(path / name / f"{i // 2}_{i % 2}.png")
    return path


@pytest.fixture
def opened(monkeypatch):
    """The pictures that are read, each time."""
    files = []
    read = folder.Pictures._read
    monkeypatch.setattr(folder.Pictures, "_read", lambda self, i: files.append(self.files[i]) or read(self, i))
    return files


def test_class_folders_become_classes_and_pictures_stay_bytes(tmp_path):
    benchmark = from_folder(fill(tmp_path / "pictures"), n_experiences=2, test=1 / 3)
    assert benchmark.class_names == CLASSES and benchmark.n_classes_per_exp == [2, 2]
    for stream, n in ((benchmark.train_stream, 8), (benchmark.test_stream, 4)):
        for experience in stream:
            data = experience.tensors()
            assert data.x.shape == (n, 3, 4, 5) and data.x.dtype == torch.uint8
            assert torch.equal(data.x[:, 0, 0, 0] // 40, data.y)
    first = benchmark.train_stream[0].tensors()
    assert first.mean == pytest.approx([float(first.x.float().mean()) / 255] * 3)


def test_domain_folders_become_experiences(tmp_path):
    for domain in ("10", "9"):
        fill(tmp_path / domain)
    benchmark = from_folder(tmp_path, by="domain", mode="L", test=1 / 3, validation=0.25, task_labels=True)
    assert [len(e.dataset) for e in benchmark.train_stream] == [12, 12] and benchmark.n_classes_per_exp == [4, 4]
    assert [len(e.dataset) for e in benchmark.valid_stream] == [4, 4]
    index = benchmark.train_stream[0].tensors().index
    assert int(index.min()) >= 24 and benchmark.train_stream[0].tensors().x.shape[1] == 1, "the folder 9 comes first"
    with pytest.raises(ValueError, match=r"10 has no picture .*; it has folders, as of domains and classes"):
        from_folder(tmp_path)


def test_pictures_of_one_source_are_on_one_side_and_a_folder_may_be_for_testing(tmp_path):
    path = fill(tmp_path / "pictures")
    benchmark = from_folder(path, n_experiences=4, groups=r"^(\d+)_")
    sides = [
        {int(level) % 40 // 2 for e in stream for level in e.tensors().x[:, 0, 0, 0]}
        for stream in (benchmark.train_stream, benchmark.test_stream)
    ]
    assert sides[0] | sides[1] == {0, 1, 2} and not sides[0] & sides[1]
    given = from_folder(path, n_experiences=4, test=fill(tmp_path / "more", n=2))
    assert [len(e.dataset) for e in given.train_stream] == [6] * 4
    assert [len(e.dataset) for e in given.test_stream] == [2] * 4


def test_what_is_transparent_is_white_and_sizes_are_brought_to_one(tmp_path):
    path = fill(tmp_path / "pictures", n=3)
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(path / "apple" / "0_0.png")
    with pytest.raises(ValueError, match=r"apple/0_0.png is 9 x 9 and .*apple/0_1.png 4 x 5 pixels: give size"):
        from_folder(path, n_experiences=2, test=1 / 3)
    benchmark = from_folder(path, n_experiences=2, test=1 / 3, size=[6, 7])
    data = [e.tensors() for e in (*benchmark.train_stream, *benchmark.test_stream)]
    assert {tuple(d.x.shape[1:]) for d in data} == {(3, 6, 7)}
    assert [int(d.x[i].min()) for d in data for i in range(len(d.x)) if d.index[i] == 0] == [255]


def test_lazy_pictures_are_the_same_and_read_only_when_they_are_needed(tmp_path, opened, monkeypatch):
    path = fill(tmp_path / "pictures", n=40)
    held = from_folder(path, n_experiences=2)
    opened.clear()
    monkeypatch.setattr(folder, "ENOUGH", 10)
    lazy = from_folder(path, n_experiences=2, lazy=True)
    assert len(opened) == 10, "what the levels are measured on"
    assert not hasattr(lazy.train_stream[0], "tensors") and lazy.class_names == CLASSES
    assert len(lazy.train_stream[0].dataset) == 64 and len(opened) == 10
    x, y, _ = lazy.train_stream[1].dataset[5]
    raw = held.train_stream[1].tensors()
    assert len(opened) == 11 and y == int(raw.y[5]) and x.shape == (3, 4, 5)
    levels = raw.x[:2].float().mean((1, 2, 3)) / 255
    items = torch.stack([lazy.train_stream[1].dataset[i][0] for i in range(2)]).mean((1, 2, 3))
    assert float((items[1] - items[0]) / (levels[1] - levels[0])) > 1, "they are divided by the standard deviation"
    opened.clear()
    learner = Learner(MLP(60, hidden=(8,), n_classes=4), BayesDual(memory_size=8))
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(learner, StreamDataModule(lazy, epochs=1, batch_size=16))
    of_second = {experience_file for experience_file in opened if experience_file.parent.name in ("car", "dog")}
    assert len(learner.algorithm.memory) == 8
    assert len(of_second) <= 2 * 8 + 2, "of the second experience those for testing, and one a class for its label"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"path": "nowhere"}, "nowhere: there is no such folder; give one of CLASS"),
        ({"path": "pictures/apple"}, "apple has no folder of a class"),
        ({"n_experiences": 5}, "fewer than the 5 experiences"),
        ({"size": [1, 2, 3]}, "give height and width"),
        ({"mode": "CMYK"}, "mode is 'CMYK'"),
        ({"by": "time"}, "a folder says nothing of time"),
        ({"groups": "("}, "no regular expression"),
        ({"groups": r"z(\d)"}, "finds no group in the name '0_0.png'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, monkeypatch, given, sentence):
    fill(tmp_path / "pictures", n=2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        from_folder(**{"path": "pictures", "n_experiences": 2, "test": 0.5, **given})


def test_a_picture_of_16_bits_is_refused_not_cut(tmp_path):
    path = fill(tmp_path / "pictures")
    Image.fromarray(np.full((4, 5), 1000, dtype=np.uint16)).save(path / "apple" / "0_0.png")
    with pytest.raises(ValueError, match=r"apple/0_0.png cannot be read as a picture \(it has more than 8 bits"):
        from_folder(path, n_experiences=2, size=4)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, lazy):
    path = fill(tmp_path / "pictures", n=4)
    for name in CLASSES[:2]:
        for file in (path / name).iterdir():
            file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(
        ValueError, match=r"apple/\d_\d.png cannot be read as a picture" if not lazy else "cannot be read"
    ):
        from_folder(path, n_experiences=2, test=0.5, lazy=lazy)
