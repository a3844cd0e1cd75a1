"""IVON's settings from the size of what is learned."""

import pytest
import torch
from lightning import Trainer
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVON, IVONByRule, ivon_settings
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.models import MLP
from tests.streams import blobs


def test_settings_by_hand():
    settings = ivon_settings(parameters=90_000, examples=500, steps=400)
    assert settings == pytest.approx({"lr": 0.4, "ess": 500, "hess_init": 4.0, "max_norm": 3.0})
    assert ivon_settings(100, 500, 10)["lr"] == 0.75  # and no more


def test_more_parameters_and_steps_get_smaller_steps_and_the_noise_depends_on_parameters_only():
    base, wide, long, large = (
        ivon_settings(*size) for size in ((10**5, 500, 400), (10**6, 500, 400), (10**5, 500, 4000), (10**5, 5000, 400))
    )
    assert base["lr"] > max(wide["lr"], long["lr"]) and base["lr"] == large["lr"]
    noise = [s["ess"] * s["hess_init"] for s in (base, wide, large)]
    assert noise[1] == pytest.approx(10 * noise[0]) and noise[2] == pytest.approx(noise[0])


@pytest.mark.parametrize("which", ["parameters", "examples", "steps"])
def test_nothing_to_learn_is_refused(which):
    with pytest.raises(ValueError, match=f"{which} is 0: the rule for IVON's settings needs a positive number"):
        ivon_settings(**({"parameters": 9, "examples": 9, "steps": 9} | {which: 0}))


def test_frozen_parameters_do_not_count():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    model[0].requires_grad_(False)
    group = IVONByRule(lr_factor=2.0, betas=(0.8, 0.99)).make(model.parameters(), 50, 100).param_groups[0]
    expected = ivon_settings(110, 50, 100)
    assert {k: group[k] for k in ("ess", "hess_init")} == {k: expected[k] for k in ("ess", "hess_init")}
    assert group["lr"] == 2 * expected["lr"] and group["betas"] == (0.8, 0.99)


def test_convolutions_learn_at_half_the_rate():
    def rate(*layers):
        model = nn.Sequential(*layers)
        size = sum(p.numel() for p in model.parameters())
        return (
            IVONByRule().make(model.parameters(), 50, 1000).param_groups[0]["lr"] / ivon_settings(size, 50, 1000)["lr"]
        )

    assert rate(nn.Linear(90, 90)) == 1 and rate(nn.Conv2d(3, 9, 5), nn.Linear(90, 90)) == 0.5


def test_a_hundredth_of_the_noise():
    params = [nn.Parameter(torch.zeros(30, 30))]
    rule, quiet = (IVONByRule(noise=noise).make(params, 50, 100) for noise in (1.0, 0.01))
    assert float(quiet.precision()[params[0]][0, 0]) == pytest.approx(
        100 * float(rule.precision()[params[0]][0, 0]), rel=1e-2
    )
    assert quiet.param_groups[0]["lr"] == rule.param_groups[0]["lr"] and quiet.param_groups[0]["ess"] == 50
    with pytest.raises(ValueError, match="noise is 0: give a positive number"):
        IVONByRule(noise=0)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 3 * 5), (2, 3 * 3)])
def test_a_learner_without_an_optimizer_follows_its_stream(accumulate, steps):
    torch.manual_seed(0)
    learner = Learner(MLP(16, (32,), 6), BayesDual(12), lr_end=0.1)  # 2 classes of 40 examples an experience
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=accumulate,
    )
    trainer.fit(learner, StreamDataModule(blobs(), epochs=3, batch_size=16))
    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, IVON)
    expected = ivon_settings(sum(p.numel() for p in learner.network.parameters()), 80, steps)
    group = optimizer.param_groups[0]
    got = group["initial_lr"], group["ess"], group["hess_init"], optimizer.max_norm
    assert got == tuple(expected.values())
