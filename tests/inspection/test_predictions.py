"""What is kept of predictions is what the measures were of, to the last digit."""

from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer

from bayesdual.algorithm import BayesDual
from bayesdual.inspection import KeptPredictions, Predictions, matrix_of, read_predictions
from bayesdual.inspection.predictions import _in_turn, bytes_kept
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.measures import StreamMetric
from bayesdual.models import MLP
from bayesdual.stream.loaders import shard
from bayesdual.tensor_files import write_tensors
from tests.streams import blobs

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    learner = Learner(MLP(16, [16], 6), BayesDual(memory_size=12))
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[KeptPredictions(directory)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(learner, datamodule=StreamDataModule(blobs(), epochs=1, batch_size=16))
    return directory, learner


def accuracy(p, y):
    return (p.argmax(1) == y).double().mean()


def test_a_measure_worked_out_afterwards_is_that_of_the_run(learned):
    directory, learner = learned
    kept = read_predictions(directory)
    assert [*kept] == [1, 2, 3]
    assert matrix_of(kept, accuracy) == learner.history.accuracy
    metric = StreamMetric(3)
    for j in range(3):
        metric.update(*kept[3].of(j + 1), j)
    assert metric.compute()["nll"] == learner.history.nll
    data = learner.stream.evaluation_data("test")
    assert kept[3].y.tolist() == [y for of_one in data for y in of_one.y.tolist()], "in the order of the data"


def test_the_size_that_is_said_is_that_of_the_files(learned):
    directory, learner = learned
    on_disk = sum(path.stat().st_size for path in (directory / "predictions").iterdir())
    assert bytes_kept(learner) < on_disk < bytes_kept(learner) + 3 * 600, "but for the headers"


def test_shares_of_several_processes_are_joined_in_the_order_of_the_data():
    rows = torch.arange(7)
    assert _in_turn([rows[shard(7, None, rank, 3)] for rank in range(3)]).tolist() == rows.tolist()


def test_of_the_check_before_training_nothing_is_kept(tmp_path):
    callback = KeptPredictions(tmp_path)
    callback._parts = {0: [(torch.ones(1, 2), torch.zeros(1))]}
    callback.on_validation_end(SimpleNamespace(world_size=1, sanity_checking=True, is_global_zero=True), None)
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_not_measured(tmp_path):
    one = Predictions(torch.tensor([2]), torch.tensor([0.5]), torch.tensor([[0.25]]), 2)
    (row,) = matrix_of({1: one}, lambda mean, y: (mean.squeeze(1) - y).abs().mean())
    assert row[0] != row[0] and row[1] == 0.25
    with pytest.raises(FileNotFoundError, match="holds no predictions: learn with fit --predictions"):
        read_predictions(tmp_path)
    write_tensors(tmp_path / "predictions.safetensors", {}, {"format": "other/9"})
    with pytest.raises(ValueError, match="is of format other/9, which another version"):
        Predictions.load(tmp_path / "predictions.safetensors")
