"""Finding and reading data: real files, small ones of the same formats, and missing or broken ones."""

from __future__ import annotations

import gzip
import io
import pickle
import socket
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from bayesdual import scenarios
from bayesdual.scenarios import datasets, files

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(
    folder: Path, *, gz: bool = True, n_train: int = 40, n_test: int = 20, size: int = 6
) -> dict[str, np.ndarray]:
    """Writes a dataset in the format of MNIST; example i has class i % 10."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for images, labels, n in ((*IDX_FILES[:2], n_train), (*IDX_FILES[2:], n_test)):
        arrays[images] = rng.integers(0, 256, (n, size, size), dtype=np.uint8)
        arrays[labels] = (np.arange(n) % 10).astype(np.uint8)
    for name, array in arrays.items():
        content = idx_bytes(array)
        (folder / (f"{name}.gz" if gz else name)).write_bytes(gzip.compress(content) if gz else content)
    return arrays


def python2_pickle(content: dict) -> bytes:
    """Pickles as the distributors of CIFAR did with Python 2 and NumPy 1: byte strings, old module names."""

    class Python2Pickler(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)

        def save_bytes(self, value: bytes) -> None:
            self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

        def save_text(self, value: str) -> None:
            self.save_bytes(value.encode("latin1"))

        dispatch[bytes] = save_bytes
        dispatch[str] = save_text

    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar_batch(n: int, n_classes: int, label_key: str, seed: int) -> dict:
    images = np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)
    return {"data": images, label_key: [i % n_classes for i in range(n)], "batch_label": f"batch {seed}"}


def write_cifar10(root: Path) -> dict[str, dict]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batches = {f"data_batch_{i}": cifar_batch(20, 10, "labels", i) for i in range(1, 6)}
    batches["test_batch"] = cifar_batch(10, 10, "labels", 6)
    for name, batch in batches.items():
        (folder / name).write_bytes(python2_pickle(batch))
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": [f"class {i}" for i in range(10)]}))
    return batches


@pytest.fixture
def no_network(monkeypatch):
    """No server can be reached; the list that comes back gets the time limit of each try."""
    timeouts = []

    def refuse(*args, **kwargs):
        timeouts.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return timeouts


# -------------------------------------------------------------------------------------------------- real data


def test_digits_are_those_of_scikit_learn_with_a_fixed_stratified_test_part():
    from sklearn.datasets import load_digits

    digits = datasets.digits()
    assert digits.train_x.shape[1:] == (1, 8, 8) and digits.train_x.dtype == torch.uint8
    assert int(digits.train_x.max()) == 255 and digits.n_classes == 10
    levels = torch.cat([digits.train_x, digits.test_x]).squeeze(1).to(torch.float64).mul(16 / 255).round()
    bunch = load_digits()
    ours = sorted(zip(levels.flatten(1).tolist(), torch.cat([digits.train_y, digits.test_y]).tolist(), strict=True))
    theirs = sorted(zip(bunch.images.reshape(-1, 64).tolist(), bunch.target.tolist(), strict=True))
    assert ours == theirs, "the two parts make up the whole"
    share = digits.test_y.bincount() / (digits.test_y.bincount() + digits.train_y.bincount())
    assert share.sub(0.2).abs().max() < 0.005
    assert int(digits.test_x.to(torch.int64).sum()) == 1_782_731, "the split never changes"
    pixels = digits.train_x.to(torch.float64) / 255
    assert abs(float(pixels.mean()) - digits.mean[0]) < 1e-4
    assert abs(float(pixels.std()) - digits.std[0]) < 1e-4


@pytest.mark.skipif(
    not datasets.DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, no_network):
    raw = datasets.fashion_mnist(tmp_path)
    assert raw.train_x.shape == (60000, 1, 28, 28) and raw.test_x.shape == (10000, 1, 28, 28)
    assert raw.train_y.bincount().tolist() == [6000] * 10 and raw.test_y.bincount().tolist() == [1000] * 10
    pixels = raw.train_x.to(torch.float32) / 255
    assert abs(float(pixels.mean()) - raw.mean[0]) < 1e-4 and abs(float(pixels.std()) - raw.std[0]) < 1e-4
    assert no_network == [] and list(tmp_path.iterdir()) == []
    benchmark = scenarios.SplitFMNIST(root=tmp_path)
    assert [len(experience.tensors()) for experience in benchmark.train_stream] == [12000] * 5
    assert benchmark.class_names[9] == "Ankle boot"


# --------------------------------------------------------------------------------------- files of the formats


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("place", [".", "MNIST/raw"])
def test_mnist_files_are_found_gzipped_or_not_in_the_root_or_where_torchvision_puts_them(tmp_path, gz, place):
    arrays = write_idx(tmp_path / place, gz=gz)
    raw = datasets.mnist(tmp_path)
    for name, tensor in zip(IDX_FILES, (raw.train_x, raw.train_y, raw.test_x, raw.test_y), strict=True):
        assert np.array_equal(tensor.squeeze(1).numpy() if tensor.ndim == 4 else tensor.numpy(), arrays[name])
    assert raw.train_x.shape == (40, 1, 6, 6) and raw.train_y.dtype == torch.int64
    assert [len(e.tensors()) for e in scenarios.SplitMNIST(5, root=tmp_path).train_stream] == [8] * 5
    assert len(scenarios.PermutedMNIST(2, root=str(tmp_path)).train_stream[1].tensors()) == 40
    assert len(scenarios.RotatedMNIST(2, root=tmp_path).test_stream[1].tensors()) == 20


def test_files_in_the_root_come_before_those_of_the_system(tmp_path, monkeypatch, no_network):
    write_idx(tmp_path / "system", size=4)
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "system")
    assert datasets.fashion_mnist(tmp_path / "data").train_x.shape[-1] == 4
    write_idx(tmp_path / "data" / "FashionMNIST" / "raw", size=5)
    (tmp_path / "data" / "FashionMNIST" / "raw" / f"{IDX_FILES[3]}.gz").unlink()
    assert datasets.fashion_mnist(tmp_path / "data").train_x.shape[-1] == 4, "a folder has all four files or none"
    write_idx(tmp_path / "data" / "FashionMNIST" / "raw", size=5)
    assert datasets.fashion_mnist(tmp_path / "data").train_x.shape[-1] == 5


def test_mnist_is_not_taken_for_fashion_mnist(tmp_path):
    write_idx(tmp_path)
    labels = np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4] * 4, dtype=np.uint8)
    (tmp_path / f"{IDX_FILES[1]}.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte.gz holds the labels of MNIST, not of Fashion-MNIST"):
        datasets.fashion_mnist(tmp_path)
    assert datasets.mnist(tmp_path).name == "MNIST"


def test_cifar_files_are_read_as_they_are_distributed(tmp_path):
    batches = write_cifar10(tmp_path)
    raw = datasets.cifar10(tmp_path)
    stacked = np.concatenate([batches[f"data_batch_{i}"]["data"] for i in range(1, 6)]).reshape(-1, 3, 32, 32)
    assert np.array_equal(raw.train_x.numpy(), stacked)
    assert raw.train_y.tolist() == [i % 10 for i in range(20)] * 5
    assert np.array_equal(raw.test_x.numpy().reshape(10, -1), batches["test_batch"]["data"])
    assert raw.classes[3] == "class 3" and len(raw.mean) == len(raw.std) == 3
    benchmark = scenarios.SplitCIFAR10(root=tmp_path)
    image, label, _ = benchmark.train_stream[1].dataset[0]
    tensors = benchmark.train_stream[1].tensors()
    expected = (tensors.x[0] / 255 - torch.tensor(raw.mean).view(3, 1, 1)) / torch.tensor(raw.std).view(3, 1, 1)
    torch.testing.assert_close(image, expected)
    assert label == int(tensors.y[0]) == 2


def test_cifar_files_agree_with_torchvision(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    theirs = torchvision.datasets.CIFAR10(tmp_path, train=True)
    ours = datasets.cifar10(tmp_path)
    assert np.array_equal(ours.train_x.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert ours.train_y.tolist() == theirs.targets and list(ours.classes) == theirs.classes


def test_cifar100_has_the_fine_classes(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, n in (("train", 200), ("test", 100)):
        batch = cifar_batch(n, 100, "fine_labels", 0)
        batch["coarse_labels"] = [0] * n
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))  # also as Python 3 would write it
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    benchmark = scenarios.SplitCIFAR100(root=tmp_path)
    assert benchmark.n_classes == 100 and benchmark.n_classes_per_exp == [10] * 10
    assert [len(experience.tensors()) for experience in benchmark.train_stream] == [20] * 10


# ----------------------------------------------------------------------------------- missing and broken files


def test_missing_files_are_named_with_where_they_were_looked_for_and_how_to_get_them(tmp_path, no_network, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "system")
    write_idx(tmp_path / "data" / "FashionMNIST" / "raw")
    (tmp_path / "data" / "FashionMNIST" / "raw" / f"{IDX_FILES[2]}.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.fashion_mnist(tmp_path / "data")
    message = str(caught.value)
    assert IDX_FILES[2] in message and IDX_FILES[0] not in message, "only what is missing"
    for place in ("data/FashionMNIST/raw", "data", "system"):
        assert str(tmp_path / place) in message
    assert "no network" in message and "dataset-fashion-mnist" in message and "\n" not in message
    assert caught.value.__cause__ is caught.value.__context__ is None, "no traceback of urllib"


@pytest.mark.parametrize("load", [datasets.mnist, datasets.cifar10, datasets.cifar100])
def test_a_download_that_fails_fails_fast_and_leaves_nothing_behind(tmp_path, no_network, load):
    before = socket.getdefaulttimeout()
    with pytest.raises(FileNotFoundError, match="the download failed .*no network"):
        load(tmp_path / "data")
    assert no_network and set(no_network) == {files.DOWNLOAD_TIMEOUT}, "no connection is without a time limit"
    assert socket.getdefaulttimeout() == before
    assert list((tmp_path / "data").iterdir()) == []


def test_a_root_that_cannot_be_written_is_a_sentence_too(tmp_path, no_network):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(FileNotFoundError, match="the download failed .*data"):
        datasets.mnist(tmp_path / "data")


def test_what_torchvision_downloads_is_moved_to_the_root(tmp_path, monkeypatch):
    def download(scratch, download):
        assert download
        write_idx(Path(scratch) / "MNIST" / "raw", gz=False)

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    assert len(datasets.mnist(tmp_path / "data").train_y) == 40
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "data" / "MNIST" / "raw").iterdir()) == sorted(IDX_FILES)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["MNIST"]


def test_a_download_that_is_cut_off_leaves_nothing_that_looks_like_data(tmp_path, monkeypatch):
    def download(scratch, download):
        write_idx(Path(scratch) / "MNIST" / "raw", gz=False)
        raise KeyboardInterrupt

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    with pytest.raises(KeyboardInterrupt):
        datasets.mnist(tmp_path)
    assert list(tmp_path.iterdir()) == []


def broken_idx_files() -> dict[str, bytes]:
    images = np.zeros((40, 6, 6), dtype=np.uint8)
    content = idx_bytes(images)
    packed = bytearray(gzip.compress(np.random.default_rng(0).bytes(3000)))
    packed[1000] ^= 0xFF
    return {
        "cut.gz": gzip.compress(content)[:-20],
        "empty.gz": b"",
        "no gzip.gz": content,
        "flipped.gz": bytes(packed),
        "cut": content[:-1],
        "too long": content + b"0",
        "header only": content[:10],
        "other type": b"\0\0\x0d\x03" + content[4:],
        "labels": idx_bytes(np.zeros(40, dtype=np.uint8)),
        "huge": struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
        "web page": b"<html>not found</html>",
    }


@pytest.mark.parametrize("kind", broken_idx_files())
def test_a_broken_idx_file_is_named(tmp_path, kind):
    write_idx(tmp_path, gz=kind.endswith(".gz"))
    path = tmp_path / (IDX_FILES[0] + (".gz" if kind.endswith(".gz") else ""))
    path.write_bytes(broken_idx_files()[kind])
    with pytest.raises(ValueError, match="is truncated or damaged") as caught:
        datasets.mnist(tmp_path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_labels_and_images_that_do_not_match_are_refused(tmp_path):
    write_idx(tmp_path, gz=False)
    (tmp_path / IDX_FILES[1]).write_bytes(idx_bytes(np.zeros(39, dtype=np.uint8)))
    with pytest.raises(ValueError, match="The training data of MNIST has 40 images but 39 labels"):
        datasets.mnist(tmp_path)
    (tmp_path / IDX_FILES[1]).write_bytes(idx_bytes(np.full(40, 10, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"A label in the training data of MNIST is outside 0\.\.9"):
        datasets.mnist(tmp_path)
    (tmp_path / IDX_FILES[1]).write_bytes(idx_bytes(np.zeros(40, dtype=np.uint8)))
    with pytest.raises(ValueError, match="MNIST has no example of class 1 for the stream 'train'"):
        scenarios.SplitMNIST(root=tmp_path)


def broken_pickles() -> dict[str, bytes]:
    good = cifar_batch(20, 10, "labels", 0)
    return {
        "cut": python2_pickle(good)[:5000],
        "empty": b"",
        "web page": b"<html>not found</html>",
        "list": pickle.dumps([1, 2]),
        "no labels": python2_pickle({"data": good["data"]}),
        "too few labels": python2_pickle({**good, "labels": good["labels"][:-1]}),
        "text for labels": python2_pickle({**good, "labels": ["0"] * 20}),
        "wrong width": python2_pickle({**good, "data": good["data"][:, :-1].copy()}),
        "wrong type": python2_pickle({**good, "data": good["data"].astype(np.float32)}),
    }


@pytest.mark.parametrize("kind", broken_pickles())
def test_a_broken_cifar_file_is_named(tmp_path, kind):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(broken_pickles()[kind])
    with pytest.raises(ValueError, match="is truncated or damaged") as caught:
        datasets.cifar10(tmp_path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


class Intruder:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps({"data": Intruder(tmp_path / "trace"), "labels": []}))
    with pytest.raises(ValueError, match="test_batch is truncated or damaged .*which is no data"):
        datasets.cifar10(tmp_path)
    assert not (tmp_path / "trace").exists()
