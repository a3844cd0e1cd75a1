"""IVON in two processes, with DistributedDataParallel over gloo."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from torch.nn.parallel import DistributedDataParallel

from bayesdual.ivon import IVON

STEPS, ACCUMULATED = 4, (1, 4)
SETTINGS = {"lr": 0.05, "ess": 64, "betas": (0.9, 0.9), "weight_decay": 0.01}


class Network(nn.Module):
    """With a parameter that no process uses, and one that a single process uses in the second half of the steps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, x):
        return self.net(x)


def data():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(STEPS, 64, n, generator=generator, dtype=torch.float64) for n in (5, 1)]


def loss(model, x, y):
    return ((model(x) - y) ** 2).mean()


def result(model, optimizer):
    """Mean, Hessian and momentum of all parameters."""
    states = [(p, optimizer.state[p]["hess"], optimizer.state[p]["momentum"]) for p in model.parameters()]
    return [torch.cat([t.detach().flatten() for t in tensors]) for tensors in zip(*states, strict=True)]


def in_one_process(noise, **settings):
    """Shared noise is one sample of the joined batch; independent noise is a sample for each half."""
    model = Network()
    optimizer = IVON(model.parameters(), **SETTINGS, **settings, seed=7)
    for x, y in zip(*data(), strict=True):
        halves = [slice(0, 64)] if noise == "shared" else [slice(0, 32), slice(32, 64)]
        for rows in halves:
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                loss(model, x[rows], y[rows]).backward()
        optimizer.step()
    return result(model, optimizer)


def in_two_processes(rank, noise, accumulated, **settings):
    model = Network()
    ddp = DistributedDataParallel(model, find_unused_parameters=True)
    if noise == "independent":
        ddp.register_comm_hook(None, noop_hook)
    optimizer = IVON(model.parameters(), **SETTINGS, **settings, noise=noise, seed=7 + rank)  # rank 0's counts
    for x, y in zip(*data(), strict=True):
        x, y = x[rank * 32 :][:32], y[rank * 32 :][:32]
        parts = list(zip(x.chunk(accumulated), y.chunk(accumulated), strict=True))
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            with ddp.no_sync():
                for part in parts[:-1]:
                    (loss(ddp, *part) / accumulated).backward()
            (loss(ddp, *parts[-1]) / accumulated).backward()
        optimizer.step()
    return result(model, optimizer)


def misused(rank):
    """Independent noise, but gradients that DDP has averaged."""
    model = Network()
    ddp = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = IVON(model.parameters(), **SETTINGS, noise="independent")
    with optimizer.sampled_params(train=True):
        loss(ddp, *(t[0] for t in data())).backward()
    try:
        optimizer.step()
    except RuntimeError as error:
        return str(error)


def in_lightning(rank, noise, accumulated, directory):
    from lightning import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    from bayesdual.ivon import IVONCallback

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.network = Network()

        def training_step(self, batch, batch_idx):
            return loss(self.network, *batch)

        def configure_optimizers(self):
            return IVON(self.network.parameters(), **SETTINGS, noise=noise, seed=7 + rank)

    x, y = (t.view(STEPS, 2, accumulated, -1, t.shape[-1])[:, rank].flatten(0, 2) for t in data())
    module = Module()
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_find_unused_parameters_true", max_epochs=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[IVONCallback()], accumulate_grad_batches=accumulated, use_distributed_sampler=False,
        default_root_dir=directory,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=32 // accumulated))
    return result(module.network, trainer.optimizers[0])


def work(rank, directory):
    """What one of two processes does."""
    results = {"misused": misused(rank)}
    for noise in ("shared", "independent"):
        for approx in ("price", "gradsq"):
            for accumulated in ACCUMULATED:
                results[noise, approx, accumulated] = in_two_processes(rank, noise, accumulated, hess_approx=approx)
        for accumulated in ACCUMULATED:
            results[noise, "lightning", accumulated] = in_lightning(rank, noise, accumulated, directory)
    return results


@pytest.fixture
def results(two_processes):
    return [found["processes"] for found in two_processes]


@pytest.mark.parametrize("accumulated", ACCUMULATED)
@pytest.mark.parametrize("how", ["price", "gradsq", "lightning"])
@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_two_processes_are_one(results, noise, how, accumulated):
    ours = [r[noise, how, accumulated] for r in results]
    expected = in_one_process(noise, hess_approx="gradsq" if how == "gradsq" else "price")
    for first, second, one in zip(*ours, expected, strict=True):
        assert torch.equal(first, second)
        assert (first - one).norm() <= 1e-6 * one.norm()


def test_averaged_gradients_are_refused_with_independent_noise(results):
    assert all("register_comm_hook(None, noop_hook)" in r["misused"] for r in results)
