"""Merging as a strategy in Lightning: a callback that makes every experience an expert of the first."""

import pytest
import torch
from lightning import Trainer

from bayesdual.algorithm import BayesDual
from bayesdual.learner import Learner, MergeExperts, StreamDataModule
from bayesdual.models import MLP
from bayesdual.scenarios import RotatedDigits

pytestmark = pytest.mark.filterwarnings("ignore")


class Watched(MergeExperts):
    """Notes with which weights experiences begin, and that the optimizer has forgotten."""

    def __init__(self, method):
        super().__init__(method)
        self.begun = []

    def on_train_epoch_start(self, trainer, pl_module):
        super().on_train_epoch_start(trainer, pl_module)
        weights = {name: value.clone() for name, value in pl_module.network.state_dict().items()}
        self.begun.append((weights, len(trainer.optimizers[0].state)))


def fitted(callback, **more):
    torch.manual_seed(0)
    learner = Learner(MLP(64, (8,), 10), BayesDual(0, weight_prior=None))
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(accelerator="cpu", callbacks=[callback], **quiet, **more)
    trainer.fit(learner, StreamDataModule(RotatedDigits(3), 1, 128))
    return learner, trainer


@pytest.mark.parametrize("more", [{}, {"limit_val_batches": 0}])
def test_experts_begin_at_the_base_and_what_is_left_is_all_of_them(more):
    watched = Watched("average")
    learner, _ = fitted(watched, **more)
    base, experts = watched.experts.base, watched.experts.experts
    assert len(experts) == 2 and len(watched.begun) == 3
    for weights, states in watched.begun[1:]:
        assert states == 0 and all(torch.equal(weights[name], base[name]) for name in base)
    for name, value in learner.network.state_dict().items():
        torch.testing.assert_close(value, (base[name] + experts[0][name] + experts[1][name]) / 3)


def test_what_is_evaluated_is_merged(monkeypatch):
    at = []
    monkeypatch.setattr(Learner, "on_validation_end", lambda self: at.append(self.network[1].weight.clone()))
    learner, _ = fitted(Watched("average"))
    assert torch.equal(at[-1], learner.network[1].weight)
