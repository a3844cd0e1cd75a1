"""What a run leaves behind, and what it prints while it goes on."""

import json

import pytest
import torch
from lightning import LightningModule, Trainer

from bayesdual.algorithm import BayesDual
from bayesdual.inspection import RunReport, StreamProgress
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.memory import MemoryMap
from bayesdual.models import MLP
from tests.streams import blobs

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(directory, callbacks, max_epochs=-1):
    torch.manual_seed(0)
    learner = Learner(MLP(16, [16], 6), BayesDual(memory_size=12))
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=directory,
    )
    trainer.fit(learner, datamodule=StreamDataModule(blobs(), epochs=2, batch_size=16))
    return learner


def test_a_run_leaves_results_the_memory_and_figures(tmp_path, capsys):
    learner = fit(tmp_path, [RunReport(tmp_path), StreamProgress()])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["accuracy_matrix"] == learner.history.accuracy and len(results["accuracy_matrix"]) == 3
    assert (results["experiences_learned"], results["evaluated_on"], results["memory_size"]) == (3, "test", 12)
    assert {"bayesdual", "torch", "lightning", "avalanche-lib"} <= results["versions"].keys()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "results.json",
        "memory.safetensors",
        "posterior.safetensors",
        *(f"{name}.png" for name in ("accuracy_matrix", "accuracy_over_time", "certainty", "memory")),
        *(f"{name}.png" for name in ("accuracy_of_classes", "confusion", "reliability")),
        *(f"{name}.png" for name in ("memory_map", "memory_extremes", "memory_changes")),
        "memory_maps",
    }
    maps = [MemoryMap.load(tmp_path / f"memory_maps/experience_{k}.safetensors") for k in (1, 2, 3)]
    assert [set(mapped.y.tolist()) for mapped in maps] == [{0, 1}, {2, 3}, {4, 5}]
    assert [int(mapped.kept.sum()) for mapped in maps] == [12, 6, 4], "shares of a budget of 12"
    assert all((tmp_path / name).read_bytes()[1:4] == b"PNG" for name in names if name.endswith(".png"))
    out = capsys.readouterr().out
    for i, row in enumerate(learner.history.accuracy):
        assert f"experience {i + 1}/3 learned: accuracy on it {row[i]:.3f}, on all so far" in out
    matrix = learner.history.accuracy
    fell = [(i, j) for i in (1, 2) for j in range(i) if matrix[i][j] < matrix[i - 1][j]]
    assert out.count("    lost since: ") == len({i for i, _ in fell})
    assert out.startswith("device ") and f"writes to    {tmp_path}\n" in out
    assert "\nstream       3 experiences, 6 classes, 240 examples; epochs 2, batch size 16\n" in out
    assert "\nmemory       up to 12 exemplars, whose inputs are 192 bytes\n" in out
    assert "stopped early" not in out and "12 of 12 exemplars" in out


def test_a_run_that_stops_early_says_how_it_goes_on(tmp_path, capsys):
    fit(tmp_path, [RunReport(tmp_path)], max_epochs=3)
    out = capsys.readouterr().out
    assert "stopped early, in experience 2 of 3: go on with --ckpt_path last" in out
    assert json.loads((tmp_path / "results.json").read_text())["experiences_learned"] == 1


@pytest.mark.parametrize("callback", [RunReport, lambda _: StreamProgress()], ids=["report", "progress"])
def test_what_is_shown_is_a_learner_s(callback, tmp_path):
    class Other(LightningModule):
        def training_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return None

    trainer = Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback(tmp_path)], logger=False, enable_checkpointing=False
    )
    with pytest.raises(TypeError, match="shows a bayesdual.Learner, not a Other: leave it out"):
        trainer.fit(Other(), [torch.zeros(2)])
