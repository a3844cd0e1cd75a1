"""Parameters of 16 bits: the state is in float32, and the mean is kept exactly."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from bayesdual.ivon import IVON
from bayesdual.posterior import Posterior

HALVES = (torch.bfloat16, torch.float16)
NAMES = ("mean", "hess", "momentum")


def slope(p):
    """A loss whose gradient is the same everywhere, and in all types."""
    return (p * torch.tensor([1.0, -0.5, 2.0]).to(p.dtype)).sum()


def sloping_steps(dtype, steps, samples=1, **settings):
    """The optimizer and its parameter after steps down a slope."""
    p = nn.Parameter(torch.tensor([1.0, 1.5, -0.25], dtype=dtype))
    optimizer = IVON([p], **{"lr": 0.01, "ess": 1e4, "betas": (0.9, 0.99), "seed": 0} | settings)
    for _ in range(steps):
        for _ in range(samples):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                slope(p).backward()
        optimizer.step()
    return optimizer, p


def network(dtype=torch.bfloat16, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)
    optimizer = IVON(model.parameters(), **{"lr": 0.05, "ess": 50, "betas": (0.9, 0.9), "seed": 0} | settings)
    return model, optimizer


def step(model, optimizer, scale=1.0):
    x = torch.linspace(-1, 1, 15).view(5, 3).to(model[0].weight.dtype)

    def closure():
        optimizer.zero_grad()
        loss = scale * ((model(x) - 1) ** 2).mean()
        loss.backward()
        return loss

    return optimizer.step(closure)


def state(model, optimizer):
    parts = [optimizer.state[p][name] for p in model.parameters() for name in NAMES]
    return torch.cat([t.detach().float().flatten() for t in (*parts, *model.parameters())])


# -- the mean


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "settings", [{}, {"hess_approx": "gradsq"}, {"clip_radius": 0.3}, {"max_norm": 0.7, "max_rms": 0.3}], ids=str
)
@pytest.mark.parametrize("samples", [1, 2])
def test_learns_to_the_bit_what_float32_learns_from_the_same_gradients(dtype, settings, samples):
    single, p = sloping_steps(torch.float32, 4, samples, **settings)
    half, q = sloping_steps(dtype, 4, samples, **settings)
    assert q.dtype == dtype and torch.equal(half.state[q]["mean"], p.detach()) and torch.equal(half.means()[q], p)
    assert all(torch.equal(half.state[q][name], single.state[p][name]) for name in ("hess", "momentum"))
    assert torch.equal(half.precision()[q], single.precision()[p])


def test_steps_below_the_spacing_of_numbers_accumulate():
    """Each of a 4000th, where the next bfloat16 below 1 is 1/256 away."""
    optimizer, p = sloping_steps(torch.bfloat16, 1, lr=1 / 4000, betas=(0.9, 0.99999))
    assert p[0] == 1
    optimizer, p = sloping_steps(torch.bfloat16, 200, lr=1 / 4000, betas=(0.9, 0.99999))
    assert p[0].item() == pytest.approx(0.95, abs=0.01)


def test_what_a_sample_is_to_the_curvature_where_its_deviation_is_below_the_spacing():
    """Against eps as drawn, the sample that rounding has made moves as far as the posterior says, and no further."""
    mean = torch.empty(200_000).uniform_(1, 2, generator=torch.Generator().manual_seed(0))
    p = nn.Parameter(mean.bfloat16())
    optimizer = IVON([p], lr=0.0, ess=1e6, hess_init=0.25, seed=0)  # deviation 1/500, and numbers are 1/128 apart
    saved = optimizer.state_dict()
    saved["state"][0] = {"step": 0, "mean": mean, "hess": torch.full_like(mean, 0.25), "momentum": 0 * mean}
    optimizer.load_state_dict(saved)
    optimizer.open_sample()
    moved = p.detach().float() - mean
    optimizer.restore_mean()
    eps, variance = optimizer._samples.layout.buffers[p], 1 / 250_100
    assert float((eps * moved).mean()) == pytest.approx(variance, rel=0.05)
    assert float(moved.square().mean()) > 2 * variance, "as rounded, eps is too long"
    assert torch.equal(optimizer.state[p]["mean"], mean) and torch.equal(p, mean.bfloat16())


def test_what_somebody_writes_to_the_parameters_is_the_mean():
    model, optimizer = network()
    start = copy.deepcopy(model.state_dict())
    for _ in range(3):
        step(model, optimizer)
    weight, bias = model[0].weight, model[0].bias
    before = optimizer.state[weight]["mean"].clone()
    with torch.no_grad():
        weight[0, 0] = 3.0
    before[0, 0] = 3.0
    assert torch.equal(optimizer.means()[weight], before)
    with optimizer.sampled_params():
        pass
    assert torch.equal(optimizer.state[weight]["mean"], before)  # all others keep what the parameter cannot hold
    assert not torch.equal(before, before.bfloat16().float())
    model.load_state_dict(start)
    with optimizer.sampled_params(train=True):
        model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
    assert torch.equal(optimizer.state[bias]["mean"], start["0.bias"].float())
    with torch.no_grad():
        bias.fill_(0.5)  # between the sample and the step
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert bool((bias == 0.5).all())


def test_samples_are_rounded_and_the_mean_comes_back_on_every_way_out():
    model, optimizer = network()
    step(model, optimizer)
    before = state(model, optimizer)
    with pytest.raises(KeyError), optimizer.sampled_params(train=True):
        assert model[0].weight.dtype == torch.bfloat16
        raise KeyError
    with optimizer.sampled_params():
        kept = model.state_dict()
        sample = kept["0.weight"].clone()
    assert torch.equal(kept["0.weight"], sample) and not torch.equal(sample, model[0].weight)
    assert torch.equal(state(model, optimizer), before)
    assert torch.equal(optimizer.state[model[0].weight]["mean"].bfloat16(), model[0].weight)


# -- the step


def test_long_gradients_of_float16_are_measured_in_float32():
    p = nn.Parameter(torch.zeros(100_000, dtype=torch.float16))
    optimizer = IVON([p], lr=0.1, ess=10, max_norm=1.0, betas=(0.0, 0.9), seed=0)
    optimizer.step(lambda: (300 * p).sum().backward())  # of length 94,868, which float16 does not reach
    torch.testing.assert_close(optimizer.state[p]["momentum"], torch.full((100_000,), 100_000**-0.5))


def test_gradients_that_are_not_numbers_are_refused_or_skipped():
    model, optimizer = network()
    step(model, optimizer)
    before = state(model, optimizer)
    with pytest.raises(FloatingPointError, match="is infinite or not a number"):
        step(model, optimizer, math.inf)
    assert torch.equal(state(model, optimizer), before)
    optimizer.zero_grad()
    with optimizer.sampled_params(train=True):
        (model(torch.ones(1, 3, dtype=torch.bfloat16)) * math.inf).sum().backward()
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(state(model, optimizer), before)


def test_accumulation_and_clipping():
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        optimizer, p = sloping_steps(dtype, 1)
        for _ in range(3):
            optimizer.zero_grad()
            for _ in range(4):
                optimizer.open_sample()
                slope(p).backward()
                optimizer.restore_mean()
            nn.utils.clip_grad_value_([p], 2.0)
            optimizer.step()
        results.append(optimizer.means()[p])
    assert torch.equal(*results)


# -- the state


def by_file(model, optimizer):
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, saved = torch.load(file, weights_only=True)
    other, fresh = network(seed=9)
    other.load_state_dict(weights)
    fresh.load_state_dict(saved)
    return other, fresh


def by_distributed_checkpoint(model, optimizer):
    other, fresh = network(seed=9)
    get_optimizer_state_dict(other, fresh)  # makes the state
    other.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other, fresh, copy.deepcopy(get_optimizer_state_dict(model, optimizer)))
    return other, fresh


@pytest.mark.parametrize(
    "door",
    [by_file, by_distributed_checkpoint, lambda *pair: copy.deepcopy(pair), lambda *p: pickle.loads(pickle.dumps(p))],
    ids=["file", "distributed checkpoint", "copy", "pickle"],
)
def test_goes_on_to_the_bit(door):
    model, optimizer = network()
    for _ in range(3):
        step(model, optimizer)
    twin = door(model, optimizer)
    for _ in range(2):
        step(model, optimizer)
        step(*twin)
    assert torch.equal(state(model, optimizer), state(*twin))


def test_a_parameter_changes_its_type():
    model, optimizer = network(torch.float32)
    step(model, optimizer)
    learned = optimizer.state[model[0].weight]["hess"].clone()
    model.bfloat16()
    with optimizer.sampled_params():
        pass
    assert set(NAMES) < set(optimizer.state[model[0].weight])
    assert torch.equal(optimizer.state[model[0].weight]["hess"], learned)
    step(model, optimizer)
    model.double()
    step(model, optimizer)
    assert "mean" not in optimizer.state[model[0].weight]


def test_a_head_that_grows_keeps_the_mean():
    old = nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16))
    optimizer = IVON([old], lr=0.01, ess=10, seed=0)
    optimizer.step(lambda: (old**2).sum().backward())
    learned = optimizer.state[old]["mean"].clone()
    new = nn.Parameter(torch.cat([old.detach(), torch.full((1, 3), 0.3, dtype=torch.bfloat16)]))
    optimizer.state[new] = optimizer.state.pop(old)
    optimizer.param_groups[0]["params"][0] = new
    with optimizer.sampled_params():
        pass
    assert torch.equal(optimizer.state[new]["mean"], torch.cat([learned, new.detach()[2:].float()]))


def test_the_posterior_has_the_exact_mean_and_predicts_in_the_type_of_the_network():
    model, optimizer = network()
    for _ in range(3):
        step(model, optimizer)
    posterior = Posterior.from_optimizer(model, optimizer)
    weight = model[0].weight
    assert torch.equal(posterior.mean["0.weight"], optimizer.state[weight]["mean"])
    assert not torch.equal(posterior.mean["0.weight"], weight.float())
    p = posterior.predict(model, torch.ones(2, 3, dtype=torch.bfloat16), samples=4)
    assert p.dtype == torch.float32 and torch.equal(p, torch.ones(2, 1))


def test_lightning_in_true_bfloat16(tmp_path):
    from lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network(torch.float32)[0]

        def training_step(self, batch, index):
            return (self.network(batch) ** 2).mean()

        def configure_optimizers(self):
            return IVON(self.network.parameters(), lr=0.05, ess=50, seed=0)

        def train_dataloader(self):
            return torch.linspace(-1, 1, 30).view(5, 2, 3)

    module = Module()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        precision="bf16-true", default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    optimizer = trainer.optimizers[0]
    assert module.network[0].weight.dtype == torch.bfloat16
    means = optimizer.means()
    posterior = Posterior.from_checkpoint(tmp_path / "last.ckpt", network()[0])
    assert all(torch.equal(posterior.mean[n], means[p]) for n, p in module.network.named_parameters())


def test_other_types_are_refused():
    p = nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn))
    with pytest.raises(ValueError, match=r"torch.float8_e4m3fn, which is too coarse to hold a sample: keep it in bfl"):
        IVON([p], lr=0.1, ess=10)
