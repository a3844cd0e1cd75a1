"""``predict RUN --input`` and ``export RUN``."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesdual.serving import load
from tests.cli.test_fit import call, refused
from tests.streams import blobs

RUN = "runs/more"


def test_data_of_ones_own_are_predicted(beside_more):
    x = blobs().test_stream[2].tensors().x[:7]
    np.savez("new.npz", x=x.numpy(), id=[f"n{i}" for i in range(7)])
    status, out, err = call("predict", RUN, "--input", "new.npz")
    assert (status, out, err) == (0, "predictions: new.predictions.csv\n", "")
    with open("new.predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    p = load(RUN).predict_proba(x)
    assert [row["id"] for row in rows] == [f"n{i}" for i in range(7)]
    assert [int(row["class"]) for row in rows] == p.argmax(1).tolist()
    written = torch.tensor([[float(row[f"p_{k}"]) for k in range(6)] for row in rows])
    torch.testing.assert_close(written, p, rtol=0, atol=1e-6)
    entropy = torch.tensor([float(row["entropy"]) for row in rows])
    torch.testing.assert_close(entropy, torch.distributions.Categorical(p).entropy(), rtol=0, atol=1e-5)
    assert call("predict", RUN, "--input=new.npz", "--output", "b.csv", "--prediction", "linearised")[0] == 0
    assert Path("b.csv").read_text() != Path("new.predictions.csv").read_text()
    np.save("dark.npy", torch.cat([e.tensors().x // 3 for e in blobs().test_stream]).numpy())
    status, out, _ = call("predict", RUN, "--input", "dark.npy")
    assert status == 0 and out.startswith(
        "note: these inputs are others than those that the run was evaluated on (two-"
    )


def test_a_run_is_exported(beside_more):
    status, out, err = call("export", RUN, "--output", "model.safetensors")
    assert (status, out, err) == (0, "exported to model.safetensors\n", "")
    assert "has none of the endings" in refused("export", RUN, "--output", "model.zip", status=1)
    assert "there is no gone" in refused("export", "gone", "--output", "model.pt2", status=1)
    assert "the following arguments are required: --output" in refused("export", RUN)
    assert "there is no no.npz" in refused("predict", RUN, "--input", "no.npz", status=1)


@pytest.mark.parametrize("command", ["learn", "predict", "export"])
def test_each_says_how_it_is_used(command):
    argv = [command, "--input", "x", "--help"] if command == "predict" else [command, "--help"]
    status, out, _ = call(*argv)
    assert status == 0 and out.startswith(f"usage: python -m bayesdual {command}")
