"""IVON in Lightning's automatic optimization, in place of AdamW."""

import math
import warnings

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from bayesdual.ivon import IVON, IVONCallback

SILENT = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Regression(LightningModule):
    """Knows nothing of IVON, but for the optimizer it makes."""

    def __init__(self, factors=None, **settings):
        super().__init__()
        self.net = nn.Linear(6, 1)
        nn.init.constant_(self.net.weight, 0.1)
        nn.init.zeros_(self.net.bias)
        self.factors = factors or {}
        self.settings = {"lr": 0.05, "ess": 32, "seed": 0, **settings}
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append(self.net.weight.detach().clone())
        factor = self.factors.get(batch_idx, 1.0)
        if factor == "fail":
            raise KeyError("no such example")
        return ((self.net(x).float() - y) ** 2).mean() * factor

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.net.weight.detach().clone())

    def configure_optimizers(self):
        optimizer = IVON(self.parameters(), **self.settings)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Means(Callback):
    """The weights when nothing is being trained."""

    def __init__(self):
        self.means = []

    def on_train_start(self, trainer, module):
        self.means.append(module.net.weight.detach().clone())

    def on_train_batch_end(self, trainer, module, *args):
        self.means.append(module.net.weight.detach().clone())


def loader(batch_size=8):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 6, generator=generator), torch.randn(32, 1, generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size)


def fit(module, *callbacks, batch_size=8, validate=False, max_epochs=2, ckpt_path=None, **settings):
    means = Means()
    settings = {"enable_checkpointing": False, "max_epochs": max_epochs, **SILENT, **settings}
    trainer = Trainer(callbacks=[*callbacks, means], **settings)
    validation = loader() if validate else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(does not have many workers|log_every_n_steps|CUDA|val_dataloader).*")
        trainer.fit(module, loader(batch_size), validation, ckpt_path=ckpt_path, weights_only=True)
    return means.means, trainer.optimizers[0]


def state(module, optimizer):
    return [t.detach() for p in module.parameters() for t in (p, *list(optimizer.state[p].values())[1:])]


@pytest.mark.parametrize("callbacks", [[], [IVONCallback()]], ids=["alone", "callback"])
def test_learns_with_a_sample_each_step_and_is_at_the_mean_elsewhere(callbacks):
    module = Regression()
    means, optimizer = fit(module, *callbacks, validate=True, val_check_interval=2)
    assert len(means) == 9 and len(module.seen) == 8 and len(module.validated) > 8
    assert all(not torch.equal(seen, mean) for seen, mean in zip(module.seen, means, strict=False))
    assert all(any(torch.equal(v, m) for m in means) for v in module.validated)
    assert optimizer.state[module.net.weight]["step"] == 8 and optimizer.param_groups[0]["lr"] == 0.0125
    module_alone = Regression()
    _, optimizer_alone = fit(module_alone)
    torch.testing.assert_close(state(module, optimizer), state(module_alone, optimizer_alone), rtol=0, atol=0)


@pytest.mark.parametrize("algorithm", [None, "norm", "value"])
def test_accumulated_batches_are_one_batch(algorithm):
    clip = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm} if algorithm else {}
    whole, parts = Regression(), Regression()
    _, optimizer = fit(whole, batch_size=32, max_epochs=3, **clip)
    means, optimizer_of_parts = fit(
        parts, IVONCallback(), batch_size=8, max_epochs=3, accumulate_grad_batches=4, validate=True,
        val_check_interval=1, **clip,
    )  # fmt: skip
    assert optimizer_of_parts.state[parts.net.weight]["step"] == 3
    torch.testing.assert_close(state(whole, optimizer), state(parts, optimizer_of_parts))
    assert len(parts.seen) == 12 and all(torch.equal(parts.seen[i], parts.seen[i - i % 4]) for i in range(12))
    assert all(any(torch.equal(v, m) for m in means) for v in parts.validated)
    if clip:
        unclipped = Regression()
        fit(unclipped, batch_size=32, max_epochs=3)
        assert not torch.allclose(unclipped.net.weight, whole.net.weight)


@pytest.mark.parametrize("settings", [{"accumulate_grad_batches": 4}, {"fp16": True}], ids=str)
def test_gradients_outside_the_step_are_refused_without_the_callback(settings):
    if settings.pop("fp16", False):
        settings["plugins"] = [MixedPrecision("16-mixed", "cpu")]
    with pytest.raises(RuntimeError, match=r"IVONCallback\(\)"):
        fit(Regression(), **settings)


def test_several_samples_a_step():
    module = Regression(mc_samples=3)
    _, optimizer = fit(module)
    assert len(module.seen) == 24 and not torch.equal(module.seen[0], module.seen[1])
    assert optimizer.state[module.net.weight]["step"] == 8
    with pytest.raises(RuntimeError, match="give mc_samples=1"):
        fit(Regression(mc_samples=3), IVONCallback(), accumulate_grad_batches=4)


def test_bf16_mixed_precision_is_nearly_full_precision():
    mixed, full = Regression(), Regression()
    _, optimizer = fit(mixed, precision="bf16-mixed")
    _, expected = fit(full)
    assert optimizer.state[mixed.net.weight]["step"] == 8
    for ours, theirs in zip(state(mixed, optimizer), state(full, expected), strict=True):
        assert not torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.005)


def test_fp16_mixed_precision_skips_steps():
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=10**6))
    module = Regression(factors={1: math.inf})
    means, optimizer = fit(module, IVONCallback(), plugins=[plugin], max_epochs=1, gradient_clip_val=1.0)
    assert optimizer.state[module.net.weight]["step"] == 3
    assert torch.equal(means[1], means[2]) and not torch.equal(means[2], means[3])
    full = Regression(factors={1: 1.0})
    means_of_full, _ = fit(full, max_epochs=1, gradient_clip_val=1.0)
    torch.testing.assert_close(means[1], means_of_full[1], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("callbacks", [[], [IVONCallback()]], ids=["alone", "callback"])
def test_an_exception_in_training_leaves_the_mean(callbacks):
    module, means = Regression(factors={2: "fail"}), Means()
    with pytest.raises(KeyError):
        fit(module, *callbacks, means)
    assert torch.equal(module.net.weight, means.means[-1])


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}], ids=str)
def test_checkpoints_hold_the_mean_and_resume_to_the_bit(tmp_path, settings):
    checkpoint = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    module = Regression()
    means, optimizer = fit(module, IVONCallback(), checkpoint, enable_checkpointing=True, **settings)
    files = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    assert len(files) == optimizer.state[module.net.weight]["step"]
    for path in files:
        weight = torch.load(path, weights_only=True)["state_dict"]["net.weight"]
        assert any(torch.equal(weight, mean) for mean in means)
    resumed = Regression(seed=99)
    _, other = fit(resumed, IVONCallback(), ckpt_path=files[len(files) // 2 - 1], **settings)
    torch.testing.assert_close(state(module, optimizer), state(resumed, other), rtol=0, atol=0)


def test_manual_optimization():
    class Manual(Regression):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    manual, automatic = Manual(), Regression()
    _, optimizer = fit(manual, IVONCallback())
    _, expected = fit(automatic)
    assert optimizer.state[manual.net.weight]["step"] == expected.state[automatic.net.weight]["step"] == 8
    assert torch.equal(manual.seen[0], automatic.seen[0]) and torch.equal(manual.seen[3], automatic.seen[3])


@pytest.mark.parametrize("callbacks", [[], [IVONCallback()]], ids=["alone", "callback"])
def test_manual_optimization_without_a_sample_is_refused_in_its_own_words(callbacks):
    class Manual(Regression):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx))
            self.optimizers().step()

    with pytest.raises(RuntimeError, match="in manual optimization put the forward pass and manual_back"):
        fit(Manual(), *callbacks)


def test_data_of_unknown_length():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(loader().dataset)

    trainer = Trainer(max_epochs=1, callbacks=[IVONCallback()], enable_checkpointing=False, **SILENT)
    module = Regression(ess=1e6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, DataLoader(Stream(), 8))
    assert len(module.seen) == 4 and not any("IVON's ess" in str(w.message) for w in caught)


def test_an_ess_far_from_the_size_of_the_data_is_told():
    with pytest.warns(UserWarning, match="ess is 1e\\+06, but there are 32 training examples"):
        fit(Regression(ess=1e6), IVONCallback())


@pytest.mark.parametrize("is_sum", [True, False])
def test_a_summed_loss_is_told(is_sum):
    class Summed(Regression):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if not is_sum else self.net(batch[0]).square().sum()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Summed(), IVONCallback(), accumulate_grad_batches=2)
    assert any("IVON needs the mean" in str(w.message) for w in caught) == is_sum
