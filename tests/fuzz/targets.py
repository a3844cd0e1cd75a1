"""What is damaged, and how it is opened: every kind of file that may come from somebody else."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from PIL import Image
from safetensors.torch import load_file, save_file

import bayesdual
from bayesdual.cli.run_directories import check_checkpoint
from bayesdual.comparison import Store
from bayesdual.comparison.plan import read_comparison
from bayesdual.configuration import read_config, resolve
from bayesdual.inspection.runs import read_run
from bayesdual.learner import StreamDataModule
from bayesdual.memory import Memory
from bayesdual.posterior import Posterior, load_curvature, save_curvature
from bayesdual.scenarios import from_folder, from_table
from bayesdual.scenarios.files import read_idx, read_plain_pickle
from bayesdual.serving.inputs import read_inputs
from bayesdual.stream import Inputs
from bayesdual.tensor_files import CHECKSUM, checksum
from tests.cli.conftest import FIRST
from tests.cli.test_fit import call
from tests.fuzz.damage import damaged_bytes, damaged_text, damaged_value
from tests.learner.test_learner import learner
from tests.streams import blobs


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: What it is called.
        file: A whole one, by its path in the folder of whole ones.
        damage: Writes a damaged one, of the whole one, to a path.
        open: Reads it as the package does.
        share: How often it is tried, against others.
    """

    name: str
    file: str
    damage: Callable[[Path, Path, random.Random], None]
    open: Callable[[Path], Any]
    share: int = 1


# ---- How files are damaged ---------------------------------------------------------------------------------


def by_bytes(whole: Path, to: Path, draw: random.Random) -> None:
    to.write_bytes(damaged_bytes(whole.read_bytes(), draw))


def by_text(whole: Path, to: Path, draw: random.Random) -> None:
    to.write_text(damaged_text(whole.read_text(), draw), encoding="utf-8")


def by_pickled_values(whole: Path, to: Path, draw: random.Random) -> None:
    """A checkpoint with other values."""
    torch.save(damaged_value(torch.load(whole, weights_only=True), draw), to)


def by_json_values(whole: Path, to: Path, draw: random.Random) -> None:
    """Each line with other values, JSON all the same."""
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    at = draw.randrange(len(lines))
    lines[at] = damaged_value(lines[at], draw)
    to.write_text("\n".join(json.dumps(line, default=str) for line in lines))


def by_tensors(whole: Path, to: Path, draw: random.Random) -> None:
    """Other tensors, or another header, with the checksum that is right for them."""
    with open(whole, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
    header.pop(CHECKSUM)
    tensors = load_file(whole)
    if draw.random() < 0.6:
        changed = damaged_value(tensors, draw)
        tensors = (
            {str(n): t for n, t in changed.items() if isinstance(t, torch.Tensor)} if isinstance(changed, dict) else {}
        )
    else:
        key = draw.choice(list(header))
        try:
            header[key] = json.dumps(damaged_value(json.loads(header[key]), draw), default=str)
        except ValueError:
            header[key] = damaged_text(header[key], draw)
        if draw.random() < 0.2:
            del header[key]
    save_file({n: t.clone() for n, t in tensors.items()}, to, {**header, CHECKSUM: checksum(tensors, header)})


class Payload:
    """Pickled, it leaves a file named ``executed`` where it is loaded."""

    def __reduce__(self) -> Any:
        return Path("executed").touch, ()


def by_payload(whole: Path, to: Path, draw: random.Random) -> None:
    """Code in place of data."""
    if to.suffix in (".yaml", ".json", ".csv", ".jsonl"):
        calls = ("!!python/object/apply:os.system ['touch executed']", "!!python/object/new:os.system [touch executed]")
        lines = whole.read_text().split("\n")
        at = draw.randrange(len(lines))
        lines[at] = f"{lines[at].partition(':')[0]}: {draw.choice(calls)}"
        to.write_text("\n".join(lines))
    elif to.suffix in (".npy", ".npz"):
        array = np.array([Payload()], dtype=object)
        np.save(to, array, allow_pickle=True) if to.suffix == ".npy" else np.savez(to, x=array)
    elif draw.random() < 0.5:
        torch.save(_with_payload(torch.load(whole, weights_only=True) if to.suffix == ".ckpt" else {}, draw), to)
    else:
        to.write_bytes(pickle.dumps({"data": Payload()}))


def _with_payload(value: Any, draw: random.Random) -> Any:
    if not isinstance(value, dict) or not value or draw.random() < 0.2:
        return Payload()
    key = draw.choice(list(value))
    return {**value, key: _with_payload(value[key], draw)}


# ---- How they are opened -----------------------------------------------------------------------------------


def fit_from(path: Path) -> None:
    """Goes on with a checkpoint, for one epoch at most, as the command line does."""
    check_checkpoint(path)
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet, enable_checkpointing=False, max_epochs=1)
    trainer.fit(learner(), StreamDataModule(blobs(2, n=10), epochs=1, batch_size=10), ckpt_path=path, weights_only=True)


def serve_checkpoint(path: Path) -> None:
    run = path.parent / "run"
    shutil.copytree(path.parents[1] / "whole/run", run, dirs_exist_ok=True)
    shutil.copyfile(path, run / "checkpoints/last.ckpt")
    bayesdual.load(run).predict(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))


def read_results(path: Path) -> None:
    run = path.parent / "run"
    run.mkdir(exist_ok=True)
    shutil.copyfile(path, run / "results.json")
    read_run(run)


def read_picture(path: Path) -> None:
    for split in ("train", "test"):
        for c in "ab":
            folder = path.parent / "pictures" / split / c
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(2):
                shutil.copyfile(path.parents[1] / "whole/picture.png", folder / f"{i}.png")
    shutil.copyfile(path, path.parent / "pictures/train/a/1.png")
    made = from_folder(path.parent / "pictures", n_experiences=1)
    next(iter(made.train_stream)).tensors()


def read_table(path: Path) -> None:
    made = from_table(path, target="y", n_experiences=2)
    for experience in made.train_stream:
        experience.tensors()


def configure(path: Path) -> None:
    read_config(str(path))
    resolve(str(path))


INPUTS = Inputs((3,), "float32")
FILES = (
    ("checkpoint goes on", "last.ckpt", (by_bytes, by_pickled_values, by_pickled_values, by_payload), fit_from, 6),
    ("checkpoint is inspected", "last.ckpt", (by_bytes, by_pickled_values, by_payload), read_run, 8),
    (
        "checkpoint is served",
        "run/checkpoints/last.ckpt",
        (by_bytes, by_pickled_values, by_payload),
        serve_checkpoint,
        4,
    ),
    ("memory", "memory.safetensors", (by_bytes, by_tensors, by_tensors, by_payload), Memory.load, 16),
    ("memory in bytes", "packed.safetensors", (by_bytes, by_tensors, by_tensors), Memory.load, 12),
    ("posterior", "posterior.safetensors", (by_bytes, by_tensors, by_tensors, by_payload), Posterior.load, 16),
    ("curvature", "curvature.safetensors", (by_bytes, by_tensors, by_tensors), load_curvature, 8),
    ("configuration", "config.yaml", (by_text, by_text, by_bytes, by_payload), configure, 6),
    ("comparison", "comparison.yaml", (by_text, by_text, by_bytes, by_payload), read_comparison, 10),
    ("runs of a comparison", "runs.jsonl", (by_bytes, by_json_values, by_text), Store, 10),
    ("results", "results.json", (by_bytes, by_json_values, by_text), read_results, 10),
    ("table", "table.csv", (by_bytes, by_text, by_text), read_table, 8),
    ("picture", "picture.png", (by_bytes,), read_picture, 6),
    ("inputs as a table", "inputs.csv", (by_bytes, by_text), partial(read_inputs, inputs=INPUTS), 6),
    ("inputs as arrays", "inputs.npz", (by_bytes, by_payload), partial(read_inputs, inputs=INPUTS), 8),
    ("inputs as an array", "inputs.npy", (by_bytes, by_payload), partial(read_inputs, inputs=INPUTS), 6),
    ("digits", "digits.idx", (by_bytes,), partial(read_idx, n_dims=3), 4),
    ("batch of CIFAR", "batch.pickle", (by_bytes, by_payload), read_plain_pickle, 6),
)
TARGETS = [
    Target(name, file, damage, opened, share * ways.count(damage))
    for name, file, ways, opened, share in FILES
    for damage in dict.fromkeys(ways)
]


def write_whole_ones(folder: Path) -> None:
    """Writes a whole file of each kind."""
    folder.mkdir(parents=True)
    (folder / "first.yaml").write_text(FIRST.replace(", needs: first.txt", ""))
    status, _, err = call(
        "fit", "--config", folder / "first.yaml", "--run_dir", folder / "run", "--trainer.logger", "false"
    )
    assert status == 0, err
    for name in ("memory.safetensors", "posterior.safetensors", "config.yaml", "results.json"):
        shutil.copyfile(folder / "run" / name, folder / name)
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results))  # in one line, as JSON lines are
    model = learner()
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(**quiet, enable_checkpointing=False, max_epochs=1)
    trainer.fit(model, StreamDataModule(blobs(2, n=10), epochs=1, batch_size=10))
    trainer.save_checkpoint(folder / "last.ckpt")
    packed = learner(memory_size=None, memory_bytes=2000)
    trainer = Trainer(**quiet, enable_checkpointing=False, max_epochs=1)
    trainer.fit(packed, StreamDataModule(blobs(2, n=10), epochs=1, batch_size=10))
    packed.algorithm.memory.save(folder / "packed.safetensors")
    save_curvature(folder / "curvature.safetensors", {"a": torch.ones(3), "b": torch.ones(2, 2)})
    shipped = Path(bayesdual.__file__).parent / "configs"
    text = (shipped / "compare_digits.yaml").read_text()
    (folder / "comparison.yaml").write_text(text.replace("config: ", f"config: {shipped}/"))
    run = {
        "name": "a",
        "title": "b",
        "spec": {"learn": "x.y"},
        "code": "c",
        "version": "0",
        "results": {"average_accuracy": 0.5},
    }
    (folder / "runs.jsonl").write_text("\n".join(json.dumps({**run, "name": str(i)}) for i in range(5)))
    draw = np.random.default_rng(0)
    rows = [
        f"{a:.3f},{b:.3f},{'red' if a > 0 else 'blue'},{i % 4}" for i, (a, b) in enumerate(draw.normal(size=(80, 2)))
    ]
    (folder / "table.csv").write_text("\n".join(["u,v,colour,y", *rows]))
    Image.fromarray(draw.integers(0, 256, (6, 6), dtype=np.uint8)).save(folder / "picture.png")
    x = draw.normal(size=(5, 3)).astype("float32")
    (folder / "inputs.csv").write_text(
        "\n".join(["id,a,b,c", *(f"{i},{','.join(map(str, row))}" for i, row in enumerate(x))])
    )
    np.save(folder / "inputs.npy", x)
    np.savez(folder / "inputs.npz", x=x, id=np.arange(5))
    (folder / "digits.idx").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, *range(8)]))
    (folder / "batch.pickle").write_bytes(pickle.dumps({"data": np.zeros((2, 4), np.uint8), "labels": [0, 1]}))
