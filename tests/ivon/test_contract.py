"""What PyTorch asks of every optimizer, beyond what the other files here test."""

import copy
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel

from bayesdual.ivon import IVON


def problem(**settings):
    """A network and its optimizer, whose noise has a seed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return model, IVON(model.parameters(), **{"lr": 0.1, "ess": 20, "betas": (0.9, 0.9), "seed": 0} | settings)


def step(model, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = (model(torch.linspace(-1, 1, 15).view(5, 3)) ** 2).mean()
        loss.backward()
        return loss

    return optimizer.step(closure)


def everything(model, optimizer):
    states = [optimizer.state[p][name] for p in model.parameters() for name in ("hess", "momentum")]
    return torch.cat([t.detach().flatten() for t in (*model.parameters(), *states)])


# -- hooks


def test_hooks_around_a_step():
    model, optimizer = problem()
    calls = []
    handles = [
        optimizer.register_step_pre_hook(lambda *args: calls.append("before")),
        optimizer.register_step_post_hook(lambda *args: calls.append("after")),
    ]
    step(model, optimizer)
    for handle in handles:
        handle.remove()
    step(model, optimizer)
    assert calls == ["before", "after"]


def test_hooks_around_saving_and_loading():
    model, optimizer = problem()
    step(model, optimizer)
    optimizer.register_state_dict_post_hook(lambda optimizer, state: state | {"noted": True})
    saved = optimizer.state_dict()
    assert saved["noted"] and saved["param_groups"][0]["draws"] == 1

    def other_rate(optimizer, state):
        return state | {"param_groups": [group | {"lr": 0.7} for group in state["param_groups"]]}

    _, other = problem()
    other.register_load_state_dict_pre_hook(other_rate)
    loaded = []
    other.register_load_state_dict_post_hook(loaded.append)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.7 and loaded == [other]


# -- schedulers and settings


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=4),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, 0.5)], [2]
        ),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2, step_size_up=2, cycle_momentum=True),
        lambda o: SWALR(o, swa_lr=0.03, anneal_epochs=2),
    ],
    ids=["cosine", "plateau", "sequential", "cyclic", "SWA"],
)
def test_schedulers(make):
    model, optimizer = problem()
    scheduler = make(optimizer)
    rates = []
    for _ in range(4):
        step(model, optimizer)
        scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
        rates.append(optimizer.param_groups[0]["lr"])
    assert len(set(rates)) > 1 and bool(everything(model, optimizer).isfinite().all())


def test_a_learning_rate_that_is_a_tensor():
    results = []
    for rate in (0.1, torch.tensor(0.1, dtype=torch.float64)):
        model, optimizer = problem(lr=rate)
        for _ in range(3):
            step(model, optimizer)
        results.append(everything(model, optimizer))
    assert torch.equal(*results)
    assert optimizer.state_dict()["param_groups"][0]["lr"].item() == 0.1
    with pytest.raises(ValueError, match="IVON's lr is"):
        problem(lr=torch.tensor(-0.1))


# -- copies and states


def test_a_state_goes_round_through_every_door():
    """Saved, copied, pickled: each goes on as the original does."""
    model, optimizer = problem(mc_samples=2, max_norm=0.5)
    for _ in range(2):
        step(model, optimizer)
    twins = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    fresh = problem(mc_samples=2, max_norm=0.5, seed=9)
    fresh[0].load_state_dict(copy.deepcopy(model.state_dict()))
    fresh[1].load_state_dict(optimizer.state_dict())
    saved = copy.deepcopy(optimizer.state_dict())
    for one in (*twins, fresh):
        step(*one)
    assert all(torch.equal(s["hess"], saved["state"][i]["hess"]) for i, s in optimizer.state_dict()["state"].items())
    step(model, optimizer)
    for one in (*twins, fresh):
        assert torch.equal(everything(*one), everything(model, optimizer))


def test_a_state_of_other_groups_is_refused():
    model, optimizer = problem()
    step(model, optimizer)
    halves = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
    with pytest.raises(ValueError, match="different number of parameter groups"):
        IVON(halves, lr=0.1, ess=20).load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="doesn't match the size"):
        IVON(model[0].parameters(), lr=0.1, ess=20).load_state_dict(optimizer.state_dict())


def test_a_fresh_optimizer_takes_the_state_of_a_distributed_checkpoint():
    """By torch.distributed.checkpoint.state_dict, which keeps what stands in ``state`` and ``param_groups`` alone."""
    model, optimizer = problem()
    for _ in range(2):
        step(model, optimizer)
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    other, resumed = problem(seed=9)
    before = [p.detach().clone() for p in other.parameters()]
    template = get_optimizer_state_dict(other, resumed)  # makes the state
    assert template.keys() == saved.keys()
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), before, strict=True))
    assert all(p.grad is None for p in other.parameters()) and resumed.param_groups[0]["lr"] == 0.1
    other.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other, resumed, saved)
    for one in ((model, optimizer), (other, resumed)):
        step(*one)
    assert torch.equal(everything(model, optimizer), everything(other, resumed))


def test_only_a_fresh_optimizer_makes_such_a_step():
    model, optimizer = problem()
    step(model, optimizer)
    optimizer.param_groups[0]["lr"] = 0.0
    with pytest.raises(RuntimeError, match="not computed in a sample"):
        optimizer.step()


# -- parameters of all kinds


def test_complex_parameters_are_refused():
    with pytest.raises(ValueError, match="a parameter is complex"):
        IVON([nn.Parameter(torch.ones(2, dtype=torch.complex64))], lr=0.1, ess=10)


def test_groups_without_parameters_and_parameters_without_numbers():
    p, empty = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(0, 4))
    optimizer = IVON([{"params": []}, {"params": [p, empty]}], lr=0.1, ess=10)
    for _ in range(2):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            (p.sum() + empty.sum()).backward()
        optimizer.step()
    with optimizer.sampled_params():
        pass
    assert optimizer.state[p]["step"] == optimizer.state[empty]["step"] == 2
    with pytest.raises(ValueError, match="empty parameter list"):
        IVON([], lr=0.1, ess=10)
    frozen = IVON([nn.Parameter(torch.ones(3), requires_grad=False)], lr=0.1, ess=10)
    with frozen.sampled_params():
        pass
    frozen.step()


def test_what_cannot_be_learned_is_refused_as_by_every_optimizer():
    p = nn.Parameter(torch.ones(3))
    with pytest.raises(TypeError, match="iterable of Tensors"):
        IVON(p, lr=0.1, ess=10)
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        IVON([p * 2], lr=0.1, ess=10)
    with pytest.raises(ValueError, match="more than one parameter group"):
        IVON([{"params": [p]}, {"params": [p]}], lr=0.1, ess=10)


def test_scalars_and_named_parameters():
    p = nn.Parameter(torch.tensor(2.0))
    optimizer = IVON([("scale", p)], lr=0.1, ess=10)
    optimizer.step(lambda: (p**2).backward())
    assert p.shape == () and p < 2 and optimizer.state_dict()["param_groups"][0]["param_names"] == ["scale"]


def test_an_optimizer_that_nobody_holds_is_gone():
    model, optimizer = problem()
    step(model, optimizer)
    with optimizer.sampled_params():
        pass
    gone = weakref.ref(optimizer)
    del optimizer
    assert gone() is None


def test_averages_of_weights():
    model, optimizer = problem()
    average = AveragedModel(model)
    for _ in range(3):
        step(model, optimizer)
        average.update_parameters(model)
    assert not torch.equal(average.module[0].weight, model[0].weight)
    assert isinstance(optimizer, Optimizer)
