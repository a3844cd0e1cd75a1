"""Merging of files: every kind of them, what is written, in how much memory, and what is refused."""

import json
import subprocess
import sys

import pytest
import torch
from lightning import Trainer
from safetensors.torch import load_file, save_file
from torch import nn

from bayesdual.__main__ import main
from bayesdual.algorithm import BayesDual
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.merging import merge, merge_files
from bayesdual.models import MLP
from bayesdual.posterior import KroneckerFactors, Posterior, save_curvature
from bayesdual.scenarios import SplitDigits


def tensors(seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*shape, generator=g).to(dtype) for name, shape in (("a.w", (3, 4)), ("b", (5,)))}


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(one[name], value)


def posterior(seed, delta=0.5):
    return Posterior(tensors(seed), {name: v.abs() for name, v in tensors(seed + 10).items()}, delta)


def in_shards(folder, model):
    folder.mkdir()
    for name in model:
        save_file({name: model[name]}, folder / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in model}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def adapter(folder, model):
    folder.mkdir()
    save_file(model, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"r": 8}')


KINDS = {
    "state dict": lambda path, model: torch.save(model, path.with_suffix(".pt")),
    "safetensors": lambda path, model: save_file(model, path.with_suffix(".safetensors")),
    "sharded safetensors": in_shards,
    "checkpoint": lambda path, model: torch.save(
        {"state_dict": model, "pytorch-lightning_version": "2"}, path.with_suffix(".ckpt")
    ),
    "adapter": adapter,
}


def written(folder, kind, seeds=range(3), dtype=torch.float32):
    paths = []
    for seed in seeds:
        KINDS[kind](folder / str(seed), tensors(seed, dtype))
        paths.append(next(path for path in folder.iterdir() if path.stem == str(seed)))
    return paths


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_merged_as_tensors_are(kind, dtype, tmp_path):
    base, *models = written(tmp_path, kind, dtype=dtype)
    record = merge_files(base, models, tmp_path / "out", method="ties", scales=[2, 1], alpha=0.7, density=0.5)
    merged = load_file(tmp_path / "out" / ("adapter_model" if kind == "adapter" else "model").__add__(".safetensors"))
    given = [tensors(seed, dtype) for seed in range(3)]
    same(merged, merge(given[0], given[1:], method="ties", scales=[2, 1], alpha=0.7, density=0.5))
    assert json.loads((tmp_path / "out" / "merge.json").read_text()) == record
    assert record["method"] == "ties" and record["options"] == {"density": 0.5} and record["alpha"] == 0.7
    assert [(m["kind"], m["scale"], m["path"]) for m in record["models"]] == [
        (kind, 2, str(models[0])),
        (kind, 1, str(models[1])),
    ]
    distance = sum(
        (a.float() - b.float()).square().sum() for a, b in zip(given[0].values(), given[1].values(), strict=True)
    ).sqrt()
    assert record["models"][0]["distance"] == pytest.approx(float(distance), rel=1e-3)
    expected = (
        {"adapter_model.safetensors", "adapter_config.json", "merge.json"}
        if kind == "adapter"
        else {"model.safetensors", "merge.json"}
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert not record["posterior"]


def test_posteriors_are_merged_to_one_and_merged_again(tmp_path):
    for seed in range(3):
        posterior(seed).save(tmp_path / f"{seed}.safetensors")
    base, *models = (tmp_path / f"{seed}.safetensors" for seed in range(3))
    record = merge_files(base, models, tmp_path / "out", scales=[1, 3])
    expected = merge(posterior(0), [posterior(1), posterior(2)], scales=[1, 3])
    merged = Posterior.load(tmp_path / "out" / "posterior.safetensors")
    same(merged.mean, expected.mean)
    same(merged.curvature, expected.curvature)
    same(load_file(tmp_path / "out" / "model.safetensors"), expected.mean)
    assert merged.prior_precision == 0.5 == record["prior_precision"] and record["posterior"]
    assert [m["curvature"] for m in record["models"]] == ["diagonal"] * 2
    merge_files(base, [tmp_path / "out", models[1]], tmp_path / "again")
    again = merge(posterior(0), [expected, posterior(2)])
    same(Posterior.load(tmp_path / "again" / "posterior.safetensors").mean, again.mean)


def test_without_a_base_it_is_zeros(tmp_path):
    _, *models = written(tmp_path, "adapter")
    record = merge_files(None, models, tmp_path / "out", method="average")
    mean = {name: (a + b) / 2 for (name, a), b in zip(tensors(1).items(), tensors(2).values(), strict=True)}
    same(load_file(tmp_path / "out" / "adapter_model.safetensors"), mean)
    assert record["base"] == {"path": None, "kind": "zeros", "curvature": "none"}


def test_files_of_curvature_take_the_place_of_posteriors(tmp_path):
    base, *models = written(tmp_path, "safetensors")
    root = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    h = [{"a.w": KroneckerFactors(root @ root.T * t, torch.eye(3) + t), "b": torch.ones(5) * t} for t in (1, 2)]
    files = [tmp_path / f"h{t}.safetensors" for t in (1, 2)]
    for file, curvature in zip(files, h, strict=True):
        save_curvature(file, curvature)
    given = [tensors(seed) for seed in range(3)]
    for method in ("gradient_matching", "regmean", "fisher"):
        merge_files(base, models, tmp_path / method, method=method, curvatures=files)
        merged = load_file(tmp_path / method / "model.safetensors")
        same(merged, merge(given[0], given[1:], method=method, curvatures=h))


def test_parts_of_a_tensor_are_merged_as_the_whole(tmp_path, monkeypatch):
    for seed in range(3):
        posterior(seed).save(tmp_path / f"{seed}.safetensors")
    base, *models = (tmp_path / f"{seed}.safetensors" for seed in range(3))
    monkeypatch.setattr("bayesdual.merging.streaming.PART", 5)
    monkeypatch.setattr("bayesdual.merging.files.REMAP", 8)
    merge_files(base, models, tmp_path / "out")
    monkeypatch.undo()
    same(load_file(tmp_path / "out" / "model.safetensors"), merge(posterior(0), [posterior(1), posterior(2)]).mean)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Directories of two runs, as ``fit`` leaves them, of a network with statistics."""
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        network = MLP(64, (8,), 10)
        network.insert(1, nn.BatchNorm1d(64))
        learner = Learner(network, BayesDual(memory_size=10))
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(learner, StreamDataModule(SplitDigits(n_experiences=2), 1, 256))
        folder = tmp_path_factory.mktemp("run")
        trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
        learner.algorithm.posterior.save(folder / "posterior.safetensors")
        folders.append((folder, learner))
    return folders


def test_runs_and_their_checkpoints_are_merged_with_their_posterior(runs, tmp_path):
    folders, learners = zip(*runs, strict=True)
    for name, paths in {"runs": folders, "checkpoints": [f / "checkpoints" / "last.ckpt" for f in folders]}.items():
        record = merge_files(paths[0], paths, tmp_path / name, alpha=0.5)
        state = load_file(tmp_path / name / "model.safetensors")
        network = MLP(64, (8,), 10)
        network.insert(1, nn.BatchNorm1d(64))
        network.load_state_dict(state)
        posteriors = [learner.algorithm.posterior for learner in learners]
        expected = merge(posteriors[0], posteriors, alpha=0.5)
        for key, value in expected.mean.items():
            torch.testing.assert_close(state[key], value)
        mean = sum(learner.network[1].running_mean for learner in learners) / 2
        torch.testing.assert_close(state["1.running_mean"], mean)
        assert record["posterior"]
        merged = Posterior.load(tmp_path / name / "posterior.safetensors", network)
        same(merged.curvature, expected.curvature)


# ---- The command -------------------------------------------------------------------------------------------


def call(capsys, *argv):
    status = main(["merge", *map(str, argv)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_merges_and_says_what(tmp_path, capsys):
    base, *models = written(tmp_path, "safetensors")
    out = tmp_path / "out"
    argv = [
        "--base",
        base,
        "--models",
        *models,
        "--method",
        "task_arithmetic",
        "--scales",
        1,
        2,
        "--alpha",
        0.5,
        "--output",
        out,
    ]
    status, said, err = call(capsys, *argv)
    assert (status, err) == (0, "") and f"merged into {out}" in said.replace("\n", "") and "task_arithmetic" in said
    given = [tensors(seed) for seed in range(3)]
    same(
        load_file(out / "model.safetensors"),
        merge(given[0], given[1:], method="task_arithmetic", scales=[1, 2], alpha=0.5),
    )
    assert call(capsys, *argv)[::2] == (1, f"bayesdual: {out} is there already: give another directory to write to.\n")
    status, said, _ = call(capsys, "--help")
    assert status == 0 and "--damping" in said


HOSTILE = b"cos\nsystem\n(S'touch hostile'\ntR."


def test_what_cannot_be_merged_is_refused_in_a_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, good, _ = written(tmp_path, "safetensors")
    (tmp_path / "hostile.pt").write_bytes(HOSTILE)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-7])
    (tmp_path / "empty").mkdir()
    torch.save({"w": 3}, tmp_path / "other.pt")
    torch.save([1], tmp_path / "list.pt")
    (tmp_path / "index.json").write_text('{"weight_map": {"a.w": "gone.safetensors"}}')
    (tmp_path / "no.json").write_text("[]")
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "up.json").write_text(json.dumps({"weight_map": {"a.w": f"../{good.name}"}}))
    nan = tensors(2)
    nan["b"][3] = torch.nan
    torch.save(nan, tmp_path / "nan.pt")
    torch.save({name: v + 100 + 0.01 * torch.rand(v.shape) for name, v in tensors(1).items()}, tmp_path / "far1.pt")
    torch.save({name: v + 100 for name, v in tensors(1).items()}, tmp_path / "far2.pt")
    before = {path.name for path in tmp_path.iterdir()}
    cases = {
        "hostile.pt holds no tensors that can be read without executing code": [tmp_path / "hostile.pt"],
        "cut.safetensors is not a safetensors file, or is damaged": [tmp_path / "cut.safetensors"],
        "empty has no model: none of posterior.safetensors": [tmp_path / "empty"],
        "gone: there is no such file or directory": [tmp_path / "gone"],
        "other.pt is not a dictionary of tensors alone": [tmp_path / "other.pt"],
        "list.pt is not a dictionary of tensors": [tmp_path / "list.pt"],
        "index.json names gone.safetensors, which is not beside it": [tmp_path / "index.json"],
        "up.json names 1.safetensors, which is not beside it": [tmp_path / "nested" / "up.json"],
        "no.json is not the index of a sharded model": [tmp_path / "no.json"],
        "nan.pt has a number in 'b' that is not finite": [good, tmp_path / "nan.pt"],
        "it is not what they were trained from": [tmp_path / "far1.pt", tmp_path / "far2.pt"],
        "has no curvature of 'a.w'": [good, "--method", "fisher"],
        "alpha is 2.0": [good, "--alpha", 2],
        "is not a file of a curvature": [good, "--curvatures", good],
        "curvatures are given of 2 models, but there are 1": [good, "--curvatures", good, good],
        "'density' is not an option of average": [good, "--density", 0.5],
        "argument --method: invalid choice: 'mean'": [good, "--method", "mean"],
        "argument --classes: invalid": [good, "--classes", "a"],
    }
    for sentence, words in cases.items():
        method = [] if "--method" in words else ["--method", "average"]
        status, _, err = call(capsys, "--base", base, "--models", *words, *method, "--output", tmp_path / "out")
        assert status == (2 if "argument" in sentence else 1) and sentence in err and err.count("\n") == 1, (
            sentence,
            err,
        )
        assert {path.name for path in tmp_path.iterdir()} == before, sentence


SCRIPT = """
import sys
from pathlib import Path
from bayesdual.merging import merge_files
def mebibytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))
before = mebibytes("VmRSS")
merge_files(sys.argv[1], sys.argv[2:-1], sys.argv[-1], prior_precision=1.0)
print(mebibytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_is_that_of_one_tensor_and_little_more(tmp_path):
    """Three posteriors of 2 tensors of 32 MiB: at most two of the six and 100 MiB are in memory."""
    paths = []
    for seed in range(3):
        large = {"a": torch.full((2**23,), 1.0 + seed)}
        Posterior(large, {name: v.clone() for name, v in large.items()}, 1.0).save(tmp_path / f"{seed}.safetensors")
        paths.append(str(tmp_path / f"{seed}.safetensors"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *paths, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 2 * 32 + 100
    assert load_file(tmp_path / "out" / "model.safetensors")["a"][0] == pytest.approx(1 + (4 * 1 + 5 * 2) / 7)
