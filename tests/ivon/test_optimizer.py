"""IVON: its equations, its state, and every way into a step and out of it."""

import copy
import itertools
import math
import pickle
import shutil
import warnings

import ivon as reference
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bayesdual.ivon import IVON, drawing, equations, layout
from bayesdual.ivon.compiled import fused
from bayesdual.posterior import Posterior

INPUTS = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def parameters():
    """Weights of 6 numbers, in two tensors."""
    return [nn.Parameter(torch.full((n,), 0.1, dtype=torch.float64)) for n in (2, 4)]


def squared_loss(params, rows=slice(None)):
    return (0.5 * (INPUTS[rows] @ torch.cat(params) - TARGETS[rows]) ** 2).mean()


def sampled_step(optimizer, params, samples=1, rows=slice(None)):
    for _ in range(samples):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            squared_loss(params, rows).backward()
    optimizer.step()


def snapshot(optimizer):
    tensors = [t for p, s in optimizer.state.items() for t in (p, s["hess"], s["momentum"])]
    return [t.detach().clone() for t in tensors] + [torch.tensor(s["step"]) for s in optimizer.state.values()]


def assert_same(a, b):
    assert len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# -- the equations


@pytest.fixture
def draws_of_reference(monkeypatch):
    """ivon-opt draws one randn for each group, and so do we, small as they are."""

    monkeypatch.setattr(drawing, "standard_normal_", lambda out, key: out.normal_())


@pytest.mark.parametrize("approx", ["price", "gradsq"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("two_groups", [False, True])
@pytest.mark.parametrize("clip", [math.inf, 0.1])
def test_equals_ivon_opt_with_the_same_draws(draws_of_reference, approx, samples, two_groups, clip):
    for debias, rescale in itertools.product([True, False], repeat=2):
        results = []
        for cls, betas in (
            (reference.IVON, {"beta1": 0.8, "beta2": 0.99}),
            (IVON, {"betas": (0.8, 0.99)}),
        ):
            params = parameters()
            settings = {"weight_decay": 0.01, "hess_init": 0.7, "ess": 40, "lr": 0.05}
            groups = params
            if two_groups:
                groups = [
                    {"params": params[:1]},
                    {"params": params[1:], "ess": 25, "weight_decay": 0.2, "lr": 0.1, "hess_init": 0.5},
                ]
            rest = {"hess_approx": approx, "mc_samples": samples, "clip_radius": clip}
            optimizer = cls(groups, **settings, **betas, **rest, debias=debias, rescale_lr=rescale)
            torch.manual_seed(0)
            for _ in range(50):
                sampled_step(optimizer, params, samples)
            if cls is IVON:
                states = [optimizer.state[p] for p in params]
                result = [torch.cat([s[k] for s in states]) for k in ("hess", "momentum")]
            else:
                result = [torch.cat([g[k] for g in optimizer.param_groups]) for k in ("hess", "momentum")]
            results.append([torch.cat([p.detach() for p in params]), *result])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("approx", ["price", "gradsq"])
def test_steps_by_hand(approx):
    """In the letters of the equations, for a single weight whose loss is its cube; the Hessian as the paper has it."""
    m, u, h = 2.0, 0.0, 0.7
    lr, n, d, b1, b2, h0 = 0.1, 20.0, 0.3, 0.8, 0.6, h
    p = nn.Parameter(torch.tensor([m], dtype=torch.float64))
    optimizer = IVON([p], lr, ess=n, hess_init=h0, betas=(b1, b2), weight_decay=d, hess_approx=approx, seed=0)
    for t in (1, 2, 3):
        assert optimizer.precision()[p].item() == pytest.approx(n * (h + d), rel=1e-9)
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            eps, g = p.item() - m, 3 * p.item() ** 2
            (p**3).sum().backward()
        optimizer.step()
        hhat = n * (h + d) * eps * g if approx == "price" else n * g**2
        u = b1 * u + (1 - b1) * g
        h = b2 * h + (1 - b2) * hhat + (1 - b2) ** 2 * (h - hhat) ** 2 / (2 * (h + d))
        m -= lr * (h0 + d) * (u / (1 - b1**t) + d * m) / (h + d)
        state = optimizer.state[p]
        assert [p.item(), state["momentum"].item(), state["hess"].item()] == pytest.approx([m, u, h], rel=1e-9)


@pytest.mark.parametrize("curvature", [0.3, 2.0])
def test_hessian_converges_to_that_of_a_quadratic(curvature):
    p = nn.Parameter(torch.zeros(4000))
    optimizer = IVON([p], lr=0.1, ess=100, betas=(0.9, 0.99), seed=0)
    hessians = []
    for step in range(1500):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            (0.5 * curvature * p**2).sum().backward()
        optimizer.step()
        if step >= 1000:
            hessians.append(optimizer.state[p]["hess"].mean().item())
    # the square in the Hessian line adds about (1 - b2) / 2 of the relative variance of hhat, which is more than 2
    assert sum(hessians) / len(hessians) == pytest.approx(curvature, rel=0.05)


@pytest.mark.parametrize("approx", ["price", "gradsq"])
@pytest.mark.parametrize("samples", [1, 3])
def test_a_gradient_that_is_too_long_is_that_of_a_flatter_loss(approx, samples):
    slopes, states = torch.tensor([3.0, -4.0]), []
    for flatten, max_norm in ((1, 1.25), (4, math.inf), (4, 1.25)):  # the slopes' length is 5
        p = nn.Parameter(torch.ones(2))
        optimizer = IVON([p], lr=0.1, ess=10, hess_approx=approx, max_norm=max_norm, seed=0)
        for _ in range(3):
            for _ in range(samples):
                with optimizer.sampled_params(train=True):
                    optimizer.zero_grad()
                    (slopes / flatten @ p).backward()
            optimizer.step()
        states.append(torch.stack([p.detach(), optimizer.state[p]["hess"], optimizer.state[p]["momentum"]]))
    torch.testing.assert_close(states[0], states[1])
    assert torch.equal(states[1], states[2])  # what is short enough is left alone


@pytest.mark.parametrize("approx", ["price", "gradsq"])
@pytest.mark.parametrize("samples", [1, 3])
def test_max_rms_shortens_the_gradient_of_a_parameter_and_leaves_others_alone(approx, samples):
    slopes, states = [torch.tensor([6.0, -8.0]), torch.tensor([0.3, 0.0, 0.4])], []  # of root mean squares 7.1 and 0.29
    for flatten, limits in ((1, {"max_rms": 0.5**0.5}), (10, {}), (1, {"max_rms": 0.5**0.5, "max_norm": 1.2})):
        params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
        optimizer = IVON(params, lr=0.1, ess=10, hess_approx=approx, seed=0, **limits)
        for _ in range(3):
            for _ in range(samples):
                with optimizer.sampled_params(train=True):
                    optimizer.zero_grad()
                    (slopes[0] / flatten @ params[0] + slopes[1] @ params[1]).backward()
            optimizer.step()
        states.append(
            [torch.stack([p.detach(), *(optimizer.state[p][n] for n in ("hess", "momentum"))]) for p in params]
        )
    for others in states[1:]:  # together 1.12 long, and max_norm is of what is left
        torch.testing.assert_close(states[0], others)


def test_a_gradient_of_zeros_stays_one():
    p = nn.Parameter(torch.ones(2))
    optimizer = IVON([p], lr=0.1, ess=10, weight_decay=0.0, max_norm=1e-5, max_rms=1e-5)
    with optimizer.sampled_params(train=True):
        p.grad = torch.zeros(2)
    optimizer.step()
    assert torch.equal(p.detach(), torch.ones(2))


def test_gradients_whose_squares_overflow_are_shortened_too():
    p = nn.Parameter(torch.ones(2))
    optimizer = IVON([p], lr=0.1, ess=10, max_norm=1.0)
    with optimizer.sampled_params(train=True):
        p.grad = torch.tensor([3e30, -4e30])
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["momentum"], torch.tensor([0.06, -0.08]))


numbers = st.floats(-1e3, 1e3, width=32)
positive = st.floats(1e-4, 1e3)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, positive, numbers), min_size=1, max_size=5), positive, st.floats(0, 0.9999))
def test_precision_is_never_less_than_halved(rows, decay, beta2):
    """For h + d > 0, whatever the gradients."""
    u, g, h, e = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    new, precision = h.clone(), torch.empty_like(h)
    equations.update_state_(new, u, g, e, precision, betas=(0.9, beta2), ess=10.0, d=decay)
    torch.testing.assert_close(precision, new + decay, rtol=1e-6, atol=1e-6)
    assert bool((new + decay >= (h + decay) / 2 * (1 - 1e-9)).all())


def test_samples_have_the_variance_of_the_posterior():
    p = nn.Parameter(torch.full((100_000,), 5.0))
    optimizer = IVON([p], lr=0.1, ess=100, hess_init=0.5, weight_decay=0.5, seed=3)
    optimizer.step(lambda: p[:50_000].sum().backward())
    mean, precision = p.detach().clone(), optimizer.precision()[p]
    for train in (True, False):
        with optimizer.sampled_params(train=train):
            z = (p.detach() - mean) * precision.sqrt()
        assert z.mean().abs() < 0.015 and z.var().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("approx", ["price", "gradsq"])
def test_threads_and_layout_in_memory_do_not_change_the_result(monkeypatch, approx):
    monkeypatch.setattr(layout, "CPU_BLOCK", 1 << 14)  # many blocks
    results = []
    before = torch.get_num_threads()
    for threads, order in ((1, torch.contiguous_format), (2, torch.contiguous_format), (2, torch.channels_last)):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(32, 64, 7), nn.Flatten(), nn.Linear(64, 600)).to(memory_format=order)
        optimizer = IVON(model.parameters(), lr=0.1, ess=1, betas=(0.9, 0.5), hess_approx=approx, seed=0)
        optimizer.open_sample()
        for p in model.parameters():
            p.grad = torch.arange(p.numel()).view(p.shape) / p.numel()
        optimizer.step()
        results.append(snapshot(optimizer))
    torch.set_num_threads(before)
    assert_same(results[0], results[1])
    if approx == "gradsq":  # which does not depend on the noise
        torch.testing.assert_close(results[0], results[2])


def cubed_step(optimizer, params):
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        sum((p**3).sum() for p in params).backward()
    optimizer.step()


def test_parameters_without_a_gradient_do_not_disturb_their_neighbours(monkeypatch):
    """In a block whose parameters do not all have one, in the first steps and later."""
    monkeypatch.setattr(drawing, "standard_normal_", lambda out, key: out.fill_(0.5))
    together, alone = ([nn.Parameter(torch.ones(n, 2)) for n in (3, 2, 4, 1, 5, 2)] for _ in range(2))
    optimizer = IVON(together, lr=0.1, ess=10)
    optimizers = [IVON([p], lr=0.1, ess=10) for p in alone]
    for used in ((1, 2, 4), (0, 1, 2, 3, 4, 5), (0, 5), (3,)):
        cubed_step(optimizer, [together[i] for i in used])
        for i in used:
            cubed_step(optimizers[i], [alone[i]])
    for p, q, own in zip(together, alone, optimizers, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=0)
        for name in ("step", "hess", "momentum"):
            torch.testing.assert_close(optimizer.state[p][name], own.state[q][name], rtol=1e-6, atol=0)


def test_a_parameter_whose_numbers_have_gaps_between_them():
    results = []
    for p in (nn.Parameter(torch.ones(4, 6)[:, ::2]), nn.Parameter(torch.ones(4, 3))):
        params = [p, nn.Parameter(torch.ones(5))]
        optimizer = IVON(params, lr=0.1, ess=10, seed=0)
        for _ in range(3):
            cubed_step(optimizer, params)
        results.append(snapshot(optimizer))
    assert_same(*results)


# -- both idioms, samples and gradients


def test_closure_and_context_are_the_same():
    results = []
    for use_closure in (True, False):
        params = parameters()
        optimizer = IVON(params, lr=0.05, ess=40, mc_samples=2, seed=1)

        losses = []

        def closure(params=params, optimizer=optimizer, losses=losses):
            optimizer.zero_grad()
            losses.append(squared_loss(params))
            losses[-1].backward()
            return losses[-1]

        for _ in range(5):
            if use_closure:
                assert optimizer.step(closure) is losses[-1]
            else:
                sampled_step(optimizer, params, samples=2)
        results.append(snapshot(optimizer))
    assert_same(*results)


def test_gradients_zeroed_before_the_sample_count_too():
    results = []
    for zero in ("inside", "outside", "to none", "by hand"):
        params = parameters()
        optimizer = IVON(params, lr=0.05, ess=40, seed=1)
        for _ in range(3):
            for _ in range(2):
                if zero in ("outside", "to none"):
                    optimizer.zero_grad(set_to_none=zero == "to none")
                with optimizer.sampled_params(train=True):
                    if zero == "inside":
                        optimizer.zero_grad()
                    if zero == "by hand":
                        for p in params:
                            p.grad = None
                    squared_loss(params).backward()
            optimizer.step()
        results.append(snapshot(optimizer))
    for result in results[1:]:
        assert_same(results[0], result)


def test_accumulation_inside_a_sample_and_over_openings():
    results = []
    for way in ("whole", "inside", "openings"):
        params = parameters()
        optimizer = IVON(params, lr=0.05, ess=40, seed=1)
        for _ in range(5):
            if way == "whole":
                sampled_step(optimizer, params)
                continue
            optimizer.zero_grad()
            parts = [slice(i, i + 10) for i in range(0, 40, 10)]
            if way == "inside":
                with optimizer.sampled_params(train=True):
                    for rows in parts:
                        (squared_loss(params, rows) / 4).backward()
            else:
                for rows in parts:
                    optimizer.open_sample()
                    (squared_loss(params, rows) / 4).backward()
                    optimizer.restore_mean()
                    with optimizer.sampled_params():  # a prediction in between does not matter
                        squared_loss(params)
            optimizer.step()
        results.append(snapshot(optimizer))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


def test_gradients_of_two_samples_are_not_mixed():
    params = parameters()
    optimizer = IVON(params, lr=0.05, ess=40)
    with optimizer.sampled_params(train=True):
        squared_loss(params).backward()
    message = "added to those of another: call optimizer.zero_grad"
    with pytest.raises(RuntimeError, match=message), optimizer.sampled_params(train=True):
        squared_loss(params).backward()
    optimizer.zero_grad()
    sampled_step(optimizer, params)


def test_gradients_from_outside_a_sample_are_refused():
    params = parameters()
    optimizer = IVON(params, lr=0.05, ess=40)
    squared_loss(params).backward()
    with pytest.raises(RuntimeError, match="not computed in a sample"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="older ones"):
        optimizer.step(lambda: squared_loss(params).backward())
    optimizer.zero_grad()
    optimizer.step()  # nothing to do
    optimizer.step(lambda: squared_loss(params).backward())


def test_clipping_acts_on_the_gradient_of_the_step():
    results = []
    for clip in (True, False):
        params = parameters()
        optimizer = IVON(params, lr=0.05, ess=40, seed=1)
        for _ in range(5):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                (squared_loss(params) * (1 if clip else 1e-3)).backward()
            if clip:
                norm = nn.utils.clip_grad_norm_(params, 1e-9)
                for p in params:
                    p.grad.mul_(norm * 1e9 * 1e-3)  # as large as if the loss had been scaled
            optimizer.step()
        results.append(snapshot(optimizer))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("train", [True, False])
def test_samples_do_not_nest(train):
    params = parameters()
    optimizer = IVON(params, lr=0.05, ess=40)
    before = [p.detach().clone() for p in params]
    message = "already hold a sample"
    with (
        pytest.raises(RuntimeError, match=message),
        optimizer.sampled_params(train=train),
        optimizer.sampled_params(train=True),
    ):
        pass
    assert_same(before, [p.detach() for p in params])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("way", ["train", "predict", "closure", "second sample", "opened"])
def test_an_exception_restores_the_mean(error, way):
    params = parameters()
    optimizer = IVON(params, lr=0.05, ess=40, mc_samples=1 if way == "opened" else 2)
    sampled_step(optimizer, params)
    before = snapshot(optimizer)
    calls = []

    def fail():
        assert not torch.equal(params[0], before[0])
        calls.append(0)
        if way != "second sample" or len(calls) == 2:
            raise error
        optimizer.zero_grad()
        squared_loss(params).backward()

    if way == "opened":
        optimizer.open_sample()
    with pytest.raises(error):
        if way in ("train", "predict"):
            with optimizer.sampled_params(train=way == "train"):
                fail()
        else:
            optimizer.step(fail)
    assert_same(before, snapshot(optimizer))
    optimizer.zero_grad()
    sampled_step(optimizer, params)


def test_a_sample_that_an_exception_has_left_is_not_for_the_step():
    params = parameters()
    optimizer = IVON(params, lr=0.05, ess=40)
    with pytest.raises(KeyError), optimizer.sampled_params(train=True):
        squared_loss(params).backward()
        raise KeyError
    with pytest.raises(RuntimeError, match="not computed in a sample"):
        optimizer.step()


def test_an_interrupted_draw_leaves_the_mean(monkeypatch):
    """Ctrl-C while the blocks are at work."""
    monkeypatch.setattr(layout, "CPU_BLOCK", 1 << 14)  # many blocks
    p = nn.Parameter(torch.randn(200_000))
    before = p.detach().clone()
    optimizer = IVON([p], lr=0.1, ess=10)
    perturb, calls = equations.perturb_, []

    def interrupted(*args):
        perturb(*args)
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(drawing, "perturb_", interrupted)
    for train in (True, False):
        calls.clear()
        with pytest.raises(KeyboardInterrupt), optimizer.sampled_params(train=train):
            pass
        assert torch.equal(p, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("samples", [1, 2])
def test_nonfinite_gradients_are_refused_by_name(bad, samples):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    optimizer = IVON(list(model.named_parameters()), lr=0.1, ess=10, mc_samples=samples)
    factors = iter([1.0] * samples + [bad, 1.0][:samples] + [1e30] * samples)

    def closure():
        optimizer.zero_grad()
        model(torch.ones(4, 3)).mean().backward()
        model[1].weight.grad[0, 1] *= next(factors)

    optimizer.step(closure)
    before = snapshot(optimizer)
    with pytest.raises(FloatingPointError, match="1.weight, of shape"):
        optimizer.step(closure)
    assert_same(before, snapshot(optimizer))
    optimizer.step(closure)  # large is not infinite


@pytest.mark.filterwarnings("ignore:.*CUDA:UserWarning")
def test_gradient_scaler_that_skips_a_step():
    """A GradScaler on the CPU; its skipped step leaves no trace but the draw."""
    params = parameters()
    optimizer = IVON(params, lr=0.05, ess=40, seed=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(factor):
        optimizer.zero_grad()
        with optimizer.sampled_params(train=True):
            scaler.scale(squared_loss(params) * factor).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(params, 10.0)
        scaler.step(optimizer)
        scaler.update()

    step(1.0)
    before = snapshot(optimizer)
    step(math.inf)
    assert_same(before, snapshot(optimizer))
    with pytest.warns(UserWarning, match="sample was dropped"):
        step(1.0)

    without_scaler = parameters()
    expected = IVON(without_scaler, lr=0.05, ess=40, seed=1)
    for draw in range(3):
        with expected.sampled_params(train=True):
            expected.zero_grad()
            squared_loss(without_scaler).backward()
        nn.utils.clip_grad_norm_(without_scaler, 10.0)
        if draw == 1:
            expected.discard_samples()
        else:
            expected.step()
    torch.testing.assert_close(snapshot(optimizer), snapshot(expected))


# -- parameters of all kinds


def test_frozen_parameters_and_those_without_gradient():
    used, unused, frozen = (nn.Parameter(torch.ones(3)) for _ in range(3))
    frozen.requires_grad_(False)
    optimizer = IVON([used, unused, frozen], lr=0.1, ess=10)
    with optimizer.sampled_params(train=True):
        assert torch.equal(frozen, torch.ones(3)) and not torch.equal(unused, torch.ones(3))
        (used * frozen).sum().backward()
    optimizer.step()
    torch.testing.assert_close(used, torch.full((3,), 0.9), rtol=1e-3, atol=0)  # a step of lr, as h = h0 and g = 1
    assert torch.equal(unused, torch.ones(3)) and torch.equal(frozen, torch.ones(3))
    assert optimizer.state[used]["step"] == 1 and optimizer.state[unused]["step"] == 0
    assert not optimizer.state[frozen]

    frozen.requires_grad_(True)  # thawed: learned from now on
    used.requires_grad_(False)
    optimizer.zero_grad()
    optimizer.step(lambda: frozen.sum().backward())
    assert optimizer.state[used]["step"] == 1 and optimizer.state[frozen]["step"] == 1


def test_a_parameter_used_in_one_of_two_samples_has_gradient_zero_in_the_other():
    a, b = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = IVON([a, b], lr=0.1, ess=10, mc_samples=2)
    uses = iter([a + b, a])

    def closure():
        optimizer.zero_grad()
        (a.sum() + (b.sum() if next(uses) is not a else 0)).backward()

    optimizer.step(closure)
    torch.testing.assert_close(optimizer.state[b]["momentum"], optimizer.state[a]["momentum"] / 2)


def test_groups_have_their_own_settings_and_can_be_added():
    a, b = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = IVON([{"params": [a]}], lr=0.1, ess=10)
    optimizer.step(lambda: (a.sum() + b.sum()).backward())
    optimizer.add_param_group({"params": [b], "lr": 0.0, "ess": 1e6, "hess_init": 3.0})
    optimizer.zero_grad()
    with optimizer.sampled_params(train=True):
        assert (b - 1).abs().max() < 0.01 < (a - 1).abs().max()
        (a.sum() + b.sum()).backward()
    optimizer.step()
    assert torch.equal(b, torch.ones(3))
    torch.testing.assert_close(a, torch.full((3,), 0.8), rtol=1e-3, atol=0)  # two steps of lr
    assert optimizer.state[a]["step"] == 2 and optimizer.state[b]["step"] == 1
    assert optimizer.state[b]["hess"].mean() == pytest.approx(3, rel=0.01)


def test_parameters_keep_their_storage_and_follow_the_module():
    model = nn.Linear(3, 2)
    pointers = [p.data_ptr() for p in model.parameters()]
    optimizer = IVON(model.parameters(), lr=0.1, ess=10)

    def closure():
        optimizer.zero_grad()
        model(torch.ones(4, 3, dtype=model.weight.dtype)).mean().backward()

    optimizer.step(closure)
    assert pointers == [p.data_ptr() for p in model.parameters()]
    model.double()  # like a move to another device, new storage in the same parameters
    optimizer.step(closure)
    assert optimizer.state[model.weight]["hess"].dtype == torch.float64
    before = model.weight.detach().clone()
    with optimizer.sampled_params():
        model.float()
    torch.testing.assert_close(model.weight.double(), before)


def test_a_head_that_grows_keeps_what_was_learned():
    old = nn.Parameter(torch.ones(2, 3))
    optimizer = IVON([old], lr=0.1, ess=10, hess_init=0.5, betas=(0.9, 0.9))
    optimizer.step(lambda: (old**2).sum().backward())
    learned = copy.deepcopy(optimizer.state[old])

    new = nn.Parameter(torch.ones(4, 3))  # as Avalanche's growing classifier does it
    optimizer.state[new] = optimizer.state.pop(old)
    optimizer.param_groups[0]["params"][0] = new
    precision = Posterior.from_optimizer(nn.ParameterDict({"w": new}), optimizer).precision["w"]
    with optimizer.sampled_params():
        pass
    state = optimizer.state[new]
    assert torch.equal(state["hess"][:2], learned["hess"]) and torch.equal(state["momentum"][:2], learned["momentum"])
    assert bool((state["hess"][2:] == 0.5).all()) and not state["momentum"][2:].any()
    torch.testing.assert_close(precision, 10 * (state["hess"] + 1e-4))

    grown = IVON([nn.Parameter(torch.ones(4, 3))], lr=0.1, ess=10, hess_init=0.5)
    shrunk = IVON([nn.Parameter(torch.ones(1, 3))], lr=0.1, ess=10)
    small = IVON([old], lr=0.1, ess=10)
    old.grad = None
    small.step(lambda: (old**2).sum().backward())
    grown.load_state_dict(small.state_dict())
    with grown.sampled_params():
        pass
    assert grown.state[grown.param_groups[0]["params"][0]]["hess"].shape == (4, 3)
    with pytest.raises(ValueError, match=r"parameter 0 of group 0, of shape \(1, 3\), has shape \(2, 3\)"):
        shrunk.load_state_dict(small.state_dict())


def test_inference_mode():
    model = nn.Linear(3, 2)
    optimizer = IVON(model.parameters(), lr=0.1, ess=10)
    with torch.inference_mode(), optimizer.sampled_params():  # which makes the state
        model(torch.ones(1, 3))
    assert not model.weight.is_inference()
    optimizer.step(lambda: model(torch.ones(1, 3)).sum().backward())
    assert not optimizer.state[model.weight]["hess"].is_inference()


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler, and there is none"
)


@pytest.mark.filterwarnings("ignore")  # the compiler's
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=needs_compiler)])
def test_a_compiled_model_learns_as_it_does_uncompiled(backend):
    x, y = INPUTS[:16, :4].float(), INPUTS[16:32, :3].float()
    results = {}
    for compiled, idiom in itertools.product((False, True), ("closure", "context", "Lightning")):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
        optimizer = IVON(model.parameters(), lr=0.1, ess=16, seed=0)
        forward = torch.compile(model, backend=backend) if compiled else model
        learn(idiom, forward, optimizer, x, y)
        results[compiled, idiom] = snapshot(optimizer)
    assert results[False, "closure"][-1] == 5
    for result in results.values():
        torch.testing.assert_close(result, results[False, "closure"], rtol=1e-5, atol=1e-7)


def learn(idiom, forward, optimizer, x, y):
    """Takes five steps."""

    def closure():
        optimizer.zero_grad()
        loss = ((forward(x) - y) ** 2).mean()
        loss.backward()
        return loss

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.forward_ = forward

        def training_step(self, batch, batch_idx):
            return ((self.forward_(batch[0]) - batch[1]) ** 2).mean()

        def configure_optimizers(self):
            return optimizer

    if idiom == "Lightning":
        trainer = Trainer(
            accelerator="cpu", max_epochs=5, logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(Module(), DataLoader(TensorDataset(x, y), 16))
        return
    for _ in range(5):
        if idiom == "closure":
            optimizer.step(closure)
        else:
            with optimizer.sampled_params(train=True):
                closure()
            optimizer.step()


def fused_and_not(steps=4):
    """The state of the same optimizer with two groups, of two sizes."""
    results = []
    for compiled in (True, False):
        params = [nn.Parameter(torch.linspace(-1, 1, n)) for n in (40, 700)]
        groups = [{"params": params[:1]}, {"params": params[1:], "ess": 20, "weight_decay": 0.1}]
        optimizer = IVON(groups, lr=0.1, ess=10, betas=(0.9, 0.99), fused=compiled, seed=0)
        for _ in range(steps):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                sum((p**2).sum() for p in params).backward()
            optimizer.step()
        results.append(
            [torch.cat([p.detach(), *[optimizer.state[p][k] for k in ("hess", "momentum")]]) for p in params]
        )
    return zip(*results, strict=True)


@needs_compiler
@pytest.mark.filterwarnings("ignore")  # the compiler's
def test_a_fused_step_is_the_step(monkeypatch):
    calls, compile_ = [], torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **kwargs: calls.append(function) or compile_(function, **kwargs)
    )
    fused.cache_clear()
    for one, other in fused_and_not():
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert calls == [equations.update_state_]


def test_what_cannot_be_compiled_runs_as_it_is_after_one_warning(monkeypatch):
    def broken(function, **kwargs):
        def fail(*args, **kwargs):
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nand so on")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    fused.cache_clear()
    with pytest.warns(
        UserWarning, match="update_state_ could not be compiled, and runs as it is: no compiler$"
    ) as caught:
        for one, other in fused_and_not():
            assert torch.equal(one, other)
    fused.cache_clear()
    assert len(caught) == 1


def test_learning_rate_schedulers():
    """Rates and betas that change with each step are read at each step."""
    params = parameters()
    optimizer = IVON(params, lr=1.0, ess=40, seed=0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=4)
    used = []
    for _ in range(3):
        used.append({k: optimizer.param_groups[0][k] for k in ("lr", "betas")})
        sampled_step(optimizer, params)
        scheduler.step()
    assert used[0]["lr"] < used[1]["lr"] and used[0]["betas"] != used[1]["betas"]

    by_hand = parameters()
    other = IVON(by_hand, lr=1.0, ess=40, seed=0)
    for values in used:
        other.param_groups[0] |= values
        sampled_step(other, by_hand)
    assert_same(snapshot(optimizer), snapshot(other))


# -- the state


@pytest.mark.parametrize("samples", [1, 2])
def test_resumes_to_the_bit(tmp_path, samples):
    params = parameters()
    optimizer = IVON(params, lr=0.05, ess=40)
    for _ in range(3):
        sampled_step(optimizer, params, samples)
    torch.save({"params": params, "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    with optimizer.sampled_params():  # does not shift the noise of training
        pass
    for _ in range(3):
        sampled_step(optimizer, params, samples)

    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    again = [nn.Parameter(p.detach().clone()) for p in checkpoint["params"]]
    resumed = IVON(again, lr=0.7, ess=3)
    resumed.load_state_dict(checkpoint["optimizer"])
    for _ in range(3):
        sampled_step(resumed, again, samples)
    assert_same(snapshot(optimizer), snapshot(resumed))


def test_a_loaded_state_is_cast_and_not_shared():
    p = nn.Parameter(torch.ones(3))
    optimizer = IVON([p], lr=0.1, ess=10)
    optimizer.step(lambda: p.sum().backward())
    q = nn.Parameter(torch.ones(3, dtype=torch.float64))
    other = IVON([q], lr=0.1, ess=10)
    saved = optimizer.state_dict()
    other.load_state_dict(saved)
    assert other.state[q]["hess"].dtype == torch.float64 and other.state[q]["step"] == 1
    assert torch.equal(other.state[q]["hess"], optimizer.state[p]["hess"].double())
    same = IVON([nn.Parameter(torch.ones(3))], lr=0.1, ess=10)
    same.load_state_dict(saved)
    before = snapshot(optimizer)
    r = same.param_groups[0]["params"][0]
    same.step(lambda: r.sum().backward())
    assert_same(before, snapshot(optimizer))


def test_no_state_is_saved_while_the_parameters_are_a_sample():
    params = parameters()
    optimizer = IVON(params, lr=0.1, ess=10)
    with optimizer.sampled_params():
        for save in (optimizer.state_dict, optimizer.precision):
            with pytest.raises(RuntimeError, match="the parameters hold a sample"):
                save()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_like_the_original(copied):
    params = parameters()
    optimizer = IVON(params, lr=0.1, ess=40, hess_approx="gradsq")
    sampled_step(optimizer, params)
    params2, optimizer2 = copied((params, optimizer))
    sampled_step(optimizer, params)
    sampled_step(optimizer2, params2)
    assert_same(snapshot(optimizer), snapshot(optimizer2))


def test_the_state_of_another_optimizer_is_refused():
    params = parameters()
    with pytest.raises(ValueError, match="not that of bayesdual's IVON"):
        IVON(params, lr=0.1, ess=10).load_state_dict(torch.optim.AdamW(params).state_dict())


def test_settings_that_all_groups_share_are_told_and_saved():
    shared = {"mc_samples": 3, "hess_approx": "gradsq", "max_norm": 2.0, "max_rms": 1.0, "noise": "independent"}
    optimizer = IVON(parameters(), lr=0.1, ess=10, **shared)
    assert all(f"{name}: {value}" in repr(optimizer) for name, value in shared.items())
    again = IVON(parameters(), **optimizer.defaults)
    for one in (optimizer, again):
        assert shared.items() <= one.defaults.items() and shared.items() <= one.state_dict()["param_groups"][0].items()
        assert not set(shared) & set(one.param_groups[0])
    with pytest.raises(ValueError, match="a group's mc_samples is 2: all groups share one"):
        optimizer.add_param_group({"params": parameters(), "mc_samples": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.load_state_dict(optimizer.state_dict())
    other = IVON(parameters(), lr=0.1, ess=10, **shared | {"mc_samples": 1})
    with pytest.warns(UserWarning, match="IVON was saved with mc_samples=3, and goes on with 1") as caught:
        other.load_state_dict(optimizer.state_dict())
    assert len(caught) == 1 and other.mc_samples == 1 and "mc_samples" not in other.param_groups[0]


def test_a_state_of_version_0_2_is_read():
    """Its noise had a place of its own, and the groups did not hold what they share."""
    params = parameters()
    optimizer = IVON(params, lr=0.05, ess=40, seed=5)
    sampled_step(optimizer, params)
    state = optimizer.state_dict()
    noise = {name: state["param_groups"][0][name] for name in ("seed", "draws", "predictions")}
    new = {*noise, "mc_samples", "hess_approx", "max_norm", "max_rms", "noise"}
    groups = [{k: v for k, v in group.items() if k not in new} for group in state["param_groups"]]
    again = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = IVON(again, lr=1.0, ess=1, seed=6)
    resumed.load_state_dict({"state": state["state"], "param_groups": groups, "noise": noise})
    sampled_step(optimizer, params)
    sampled_step(resumed, again)
    assert_same(snapshot(optimizer), snapshot(resumed))


# -- bad input


NONSENSE = [
    ("lr", -1.0), ("lr", math.nan), ("lr", math.inf), ("lr", "fast"), ("ess", 0), ("ess", math.inf), ("hess_init", -1),
    ("weight_decay", math.nan), ("clip_radius", None), ("betas", (0.9, 1.0)), ("betas", (0.9,)), ("betas", 0.9),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), NONSENSE)
@pytest.mark.parametrize("when", ["before", "between"])
def test_settings_of_groups_that_were_edited_to_nonsense_are_named_when_used(name, value, when):
    params = parameters()
    optimizer = IVON(params, lr=0.1, ess=10)
    sampled_step(optimizer, params)
    before = snapshot(optimizer)
    good = optimizer.param_groups[0][name]
    if when == "before":
        optimizer.param_groups[0][name] = value
        with pytest.raises(ValueError, match=f"IVON's {name} is "), optimizer.sampled_params(train=True):
            pass
    else:
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            squared_loss(params).backward()
        optimizer.param_groups[0][name] = value
        with pytest.raises(ValueError, match=f"IVON's {name} is "):
            optimizer.step()
    assert_same(before, snapshot(optimizer))
    optimizer.param_groups[0][name] = good
    sampled_step(optimizer, params)


@pytest.mark.parametrize(
    "setting",
    [
        {"ess": 0},
        {"ess": -1},
        {"lr": -0.1},
        {"weight_decay": -1e-4},
        {"hess_init": 0},
        {"clip_radius": 0},
        {"max_norm": 0},
        {"max_rms": 0},
        {"betas": (0.9, 1.0)},
        {"mc_samples": 0},
        {"hess_approx": "exact"},
        {"noise": "own"},
    ],
    ids=str,
)
def test_bad_settings_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        IVON(parameters(), **{"lr": 0.1, "ess": 10, **setting})
    optimizer = IVON(parameters(), lr=0.1, ess=10)
    if next(iter(setting)) in optimizer.defaults:
        with pytest.raises(ValueError, match=next(iter(setting))):
            optimizer.add_param_group({"params": parameters(), **setting})
        assert len(optimizer.param_groups) == 1


def test_sparse_gradients_are_refused():
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = IVON(table.parameters(), lr=0.1, ess=10)
    with pytest.raises(ValueError, match="sparse=False"):
        optimizer.step(lambda: table(torch.tensor([1])).sum().backward())


@pytest.mark.parametrize(
    ("loss", "is_sum"),
    [
        (lambda f, y: F.cross_entropy(f, y, reduction="sum"), True),
        (lambda f, y: F.cross_entropy(f, y, reduction="none").sum(), True),
        (lambda f, y: F.mse_loss(f, torch.zeros_like(f), reduction="sum"), True),
        (lambda f, y: F.cross_entropy(f, y), False),
        (lambda f, y: F.cross_entropy(f, y, reduction="sum") / len(y), False),
        (lambda f, y: (F.cross_entropy(f, y, reduction="none") / len(y))[:1].sum(), False),
    ],
)
def test_warns_once_of_a_loss_that_is_a_sum(loss, is_sum):
    model = nn.Linear(4, 3)
    optimizer = IVON(model.parameters(), lr=0.1, ess=10)
    x, y = torch.randn(8, 4), torch.randint(3, (8,))

    def closure():
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        return value

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            optimizer.step(closure)
    assert [("IVON needs the mean" in str(w.message)) for w in caught] == [True] * is_sum
