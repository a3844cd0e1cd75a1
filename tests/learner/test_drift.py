"""A drift is told where there is one, before it is learned, in results, as a line and to loggers; and nowhere else."""

import numpy as np
import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.loggers.logger import Logger

from bayesdual import BayesDual, Learner, StreamDataModule
from bayesdual.inspection import RunReport
from bayesdual.models import MLP
from bayesdual.scenarios import SplitDigits, from_arrays

SILENT = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
DRAW = np.random.default_rng(0)
DOMAIN = np.repeat([0, 1, 2, 3], 150)
X = DRAW.normal(size=(600, 4)) + 1.5 * (DOMAIN >= 2)[:, None]  # the third differs from the second, and no other
Y = (X[:, 0] > X[:, 1]).astype(int)


class Kept(Logger):
    name, version = "kept", 0

    def __init__(self):
        super().__init__()
        self.metrics = []

    def log_metrics(self, metrics, step=None):
        self.metrics.append(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass


def learned(benchmark, folder, logger=False, likelihood="categorical", network=None, epochs=2):
    seed_everything(0, verbose=False)
    learner = Learner(network or MLP(4, (32,), 2), BayesDual(20, likelihood=likelihood))
    trainer = Trainer(**SILENT, logger=logger, callbacks=[RunReport(folder)])
    trainer.fit(learner, datamodule=StreamDataModule(benchmark, epochs, 32))
    return learner


def test_a_drift_is_told_where_there_is_one(tmp_path, capsys):
    kept = Kept()
    learner = learned(from_arrays(X, Y, by="domain", domain=DOMAIN), tmp_path, kept)
    told = learner.history.results()["drift"]
    assert [found["experience"] for found in told] == [2, 3, 4]
    assert [found["drifts"] for found in told] == [False, True, False] and told[1]["p"] == pytest.approx(1 / 500)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: the inputs")]
    assert len(lines) == 1 and "experience 3 are others than those of experience 2" in lines[0]
    logged = [metrics for metrics in kept.metrics if "drift/p" in metrics]
    assert len(logged) == 3 and logged[1]["drift/mmd2"] > 10 * max(logged[0]["drift/mmd2"], logged[2]["drift/mmd2"])
    assert {"drift/entropy", "drift/entropy_before", "drift/loss", "drift/loss_before"} <= logged[0].keys()


def test_new_classes_are_no_news(tmp_path, capsys):
    learner = learned(SplitDigits(n_experiences=2), tmp_path, network=MLP(64, (16,)), epochs=1)
    assert learner.history.drift[0]["drifts"] and "note: the inputs" not in capsys.readouterr().out
    assert learner.history.drift[0]["loss"] > 1.5 * learner.history.drift[0]["loss_before"]


def test_what_is_learned_is_the_same_and_numbers_have_no_entropy(tmp_path, monkeypatch):
    benchmark = from_arrays(X, X[:, 0], by="domain", domain=DOMAIN, targets="numbers")
    ways = []
    for looks in (True, False):
        if not looks:
            monkeypatch.setattr(Learner, "_look_for_drift", lambda self: None)
        learner = learned(benchmark, tmp_path, likelihood="gaussian", network=MLP(4, (32,), 1))
        ways.append(list(learner.parameters()))
        assert [found["drifts"] for found in learner.history.drift] == ([False, True, False] if looks else [])
        assert all("entropy" not in found for found in learner.history.drift)
    assert all(torch.equal(a, b) for a, b in zip(*ways, strict=True))
