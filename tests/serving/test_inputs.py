"""Files of inputs are read in the form that was learned, or refused in a sentence that says where."""

import numpy as np
import pytest
import torch
from PIL import Image

from bayesdual.serving import read_inputs
from bayesdual.stream import Inputs

GREY, TABLE = Inputs((1, 4, 4), "uint8", (0.4,), (0.25,)), Inputs((2,), "float32")
X = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)


def test_arrays_images_and_tables_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, id=["p", "q"], task=[0, 1])
    rows = read_inputs(tmp_path / "a.npz", GREY)
    assert rows.ids == ["p", "q"] and rows.tasks.tolist() == [0, 1] and torch.equal(rows.x, torch.from_numpy(X))
    np.save(tmp_path / "a.npy", X)
    assert list(read_inputs(tmp_path / "a.npy", GREY).ids) == [0, 1]
    (tmp_path / "images").mkdir()
    for name, pixels in zip(("b.png", "a.png"), X, strict=True):
        Image.fromarray(pixels[0]).save(tmp_path / "images" / name)
    rows = read_inputs(tmp_path / "images", GREY)
    assert rows.ids == ["a.png", "b.png"] and torch.equal(rows.x, torch.from_numpy(X[::-1].copy()))
    (tmp_path / "t.csv").write_text("a,id,b\n1,x,2.5\n-3,y,4\n")
    rows = read_inputs(tmp_path / "t.csv", TABLE)
    assert rows.ids == ["x", "y"] and rows.x.tolist() == [[1, 2.5], [-3, 4]] and rows.x.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "write", "inputs", "complaint"),
    [
        ("a.csv", lambda p: p.write_text("a,b\n1,2\n3,\n"), TABLE, "row 2, column b is no number: fill it in"),
        ("a.csv", lambda p: p.write_text("a,b,c\n1,2,3\n"), TABLE, "has 3 columns beside id, but an input .* has 2"),
        ("a.csv", lambda p: p.write_text("a,b\n"), TABLE, "has no rows below a line of names"),
        ("a.csv", lambda p: p.write_text("a,b\n1,inf\n"), TABLE, "example 0 .* has the input inf"),
        (
            "a.npy",
            lambda p: np.save(p, X.astype(float)),
            GREY,
            r"a.npy: the inputs are float64 of shape \(2, 1, 4, 4\)",
        ),
        (
            "a.npy",
            lambda p: np.save(p, np.array([{}]), allow_pickle=True),
            GREY,
            "cannot be read as an array of numbers",
        ),
        ("a.npz", lambda p: np.savez(p, y=X), GREY, "a.npz has no array x"),
        ("a.npz", lambda p: np.savez(p, x=X, id=["one"]), GREY, r"id has shape \(1,\), but there are 2 inputs"),
        ("a.txt", lambda p: p.write_text("1"), GREY, "is none of .npz, .npy, .csv and a folder"),
        ("images", lambda p: p.mkdir(), GREY, "holds no images"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, write, inputs, complaint):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=complaint):
        read_inputs(tmp_path / name, inputs)


def test_images_of_another_size_are_named(tmp_path):
    Image.fromarray(np.zeros((5, 4), dtype=np.uint8)).save(tmp_path / "tall.png")
    with pytest.raises(ValueError, match="tall.png is 4 x 5 pixels, but 4 x 4 was learned: resize it"):
        read_inputs(tmp_path, GREY)
    with pytest.raises(ValueError, match="holds images, but float32 of shape"):
        read_inputs(tmp_path, TABLE)
    with pytest.raises(FileNotFoundError, match="there is no .*gone: give a file"):
        read_inputs(tmp_path / "gone", GREY)
