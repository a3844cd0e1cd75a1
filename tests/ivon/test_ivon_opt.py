"""What users of ivon-opt bring with them: their words, their habits, and their checkpoints."""

import copy

import ivon as reference
import pytest
import torch
from torch import nn

from bayesdual.ivon import IVON, drawing, from_ivon_opt

# -- words


@pytest.mark.parametrize(
    ("given", "instead"),
    [({"beta1": 0.9}, r"betas=\(beta1, beta2\)"), ({"beta2": 0.9}, "betas"), ({"sync": True}, 'noise="independent"')],
    ids=str,
)
def test_words_of_ivon_opt_are_refused_with_ours(given, instead):
    with pytest.raises(TypeError, match=f"IVON has no {next(iter(given))}, which is ivon-opt's word: give {instead}"):
        IVON([nn.Parameter(torch.ones(2))], lr=0.1, ess=10, **given)


def test_other_words_are_refused_as_they_are():
    with pytest.raises(TypeError, match="IVON has no argument 'momentum'"):
        IVON([nn.Parameter(torch.ones(2))], lr=0.1, ess=10, momentum=0.9)


# -- habits


@pytest.mark.parametrize(
    "take", [lambda m: m.state_dict()["weight"], lambda m: m.weight.data, lambda m: m.weight.detach().cpu()]
)
@pytest.mark.parametrize("waiting", [False, True])
def test_what_is_taken_from_a_sample_for_prediction_remains_it(take, waiting):
    model = nn.Linear(6, 5)
    optimizer = IVON(model.parameters(), lr=0.1, ess=10, seed=0)
    before, place = model.weight.detach().clone(), model.weight.data_ptr()
    if waiting:
        with optimizer.sampled_params(train=True):
            model(torch.ones(1, 6)).sum().backward()
    taken, copies = [], []
    for _ in range(3):
        with optimizer.sampled_params():
            taken.append(take(model))
            copies.append(model.weight.detach().clone())
    assert all(torch.equal(a, b) for a, b in zip(taken, copies, strict=True))
    assert not torch.equal(taken[0], taken[1]) and not torch.equal(taken[0], before)
    assert torch.equal(model.weight, before) and model.weight.data_ptr() == place


def test_samples_that_nobody_keeps_use_the_same_memory():
    p, q = (nn.Parameter(torch.ones(50)) for _ in range(2))
    optimizer = IVON([p, q], lr=0.1, ess=10, seed=0)
    places, kept = [], []
    for _ in range(3):
        with optimizer.sampled_params():
            places.append((p.data_ptr(), q.data_ptr()))
            kept.append(q.data)
    assert len({place[0] for place in places}) == 1 and len({place[1] for place in places}) == 3
    with optimizer.sampled_params(train=True):
        assert p.data_ptr() not in {place[0] for place in places}
    assert not optimizer._samples._thetas  # training has no use for it


def test_a_mean_that_is_asked_for_inside_a_prediction():
    p = nn.Parameter(torch.ones(5))
    optimizer = IVON([p], lr=0.1, ess=10)
    with optimizer.sampled_params():
        kept = p.data
        optimizer.restore_mean()
        assert torch.equal(p, torch.ones(5)) and not torch.equal(kept, p)
    with pytest.raises(KeyError), optimizer.sampled_params():
        raise KeyError
    assert torch.equal(p, torch.ones(5))


def zero_in_place(params):
    """As ``model.zero_grad(set_to_none=False)`` does it."""
    for p in params:
        if p.grad is not None:
            p.grad.zero_()


def state_after(zero, n_samples, closure, steps=3):
    params = [nn.Parameter(torch.linspace(-1, 1, n)) for n in (3, 4)]
    optimizer = IVON(params, lr=0.1, ess=10, mc_samples=n_samples, betas=(0.9, 0.9), seed=0)

    def backward():
        zero(params, optimizer)
        sum((p**3).sum() for p in params).backward()

    for _ in range(steps):
        if closure:
            optimizer.step(backward)
            continue
        for _ in range(n_samples):
            with optimizer.sampled_params(train=True):
                backward()
        optimizer.step()
    return torch.cat([torch.cat([p.detach(), optimizer.state[p]["hess"]]) for p in params])


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_gradients_can_be_zeroed_in_place_in_each_sample(closure, n_samples):
    expected = state_after(lambda params, optimizer: optimizer.zero_grad(), n_samples, closure)
    assert torch.equal(state_after(lambda params, optimizer: zero_in_place(params), n_samples, closure), expected)


@pytest.mark.parametrize("clip", [nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_])
def test_clipping_does_not_hide_that_gradients_were_added(clip):
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    optimizer = IVON(params, lr=0.1, ess=10)

    def closure():
        sum((p**2).sum() for p in params).backward()
        clip(params, 1.0)

    optimizer.step(closure)
    with pytest.raises(RuntimeError, match="the closure added to older ones"):
        optimizer.step(closure)


def test_the_older_gradients_are_left_as_they_were():
    """Those of the step before, which somebody has kept."""
    p = nn.Parameter(torch.ones(3))
    optimizer = IVON([p], lr=0.1, ess=10)
    for zero in (optimizer.zero_grad, lambda: setattr(p, "grad", None)):
        p.grad = kept = torch.tensor([1.0, 2.0, 3.0])

        def closure(zero=zero):
            zero()
            p.sum().backward()

        optimizer.step(closure)
        assert torch.equal(kept, torch.tensor([1.0, 2.0, 3.0])) and p.grad is not kept
    p.grad = kept
    with pytest.raises(KeyError):
        optimizer.step(lambda: {}["no such example"])
    assert torch.equal(kept, torch.tensor([1.0, 2.0, 3.0]))


def test_gradients_zeroed_before_they_were_counted_are_missed():
    p = nn.Parameter(torch.ones(3))
    optimizer = IVON([p], lr=0.1, ess=10)
    with optimizer.sampled_params(train=True):
        p.sum().backward()
    zero_in_place([p])
    message = "zeroed in place before they were counted: zero them inside the next"
    with pytest.raises(RuntimeError, match=message), optimizer.sampled_params(train=True):
        pass
    optimizer.zero_grad()
    with optimizer.sampled_params(train=True):
        (p * 0).sum().backward()  # zero, and nobody has zeroed it
    with optimizer.sampled_params(train=True):
        optimizer.zero_grad()
        p.sum().backward()
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["momentum"], torch.full((3,), 0.05))


# -- checkpoints


def pair(cls, **betas):
    """Parameters in two groups, and an optimizer."""
    params = [nn.Parameter(torch.linspace(-1, 1, n).view(-1, 2)) for n in (4, 6, 8)]
    groups = [{"params": params[:2]}, {"params": params[2:], "ess": 30, "lr": 0.2}]
    return params, cls(groups, lr=0.05, ess=20, hess_init=0.6, weight_decay=0.01, **betas)


def learn(params, optimizer, steps):
    for _ in range(steps):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            sum((p**4).sum() for p in params).backward()
        optimizer.step()


def test_a_state_of_ivon_opt_goes_on(monkeypatch):
    monkeypatch.setattr(drawing, "standard_normal_", lambda out, key: out.normal_())  # what ivon-opt draws
    theirs, old = pair(reference.IVON, beta1=0.8, beta2=0.95)
    torch.manual_seed(0)
    learn(theirs, old, 5)
    ours, new = pair(IVON)
    for p, q in zip(ours, theirs, strict=True):
        p.data.copy_(q.data)
    untouched = copy.deepcopy(new.state_dict())
    new.load_state_dict(from_ivon_opt(old.state_dict(), new, step=old.current_step))
    for _ in range(2):
        torch.manual_seed(1)
        learn(theirs, old, 3)
        torch.manual_seed(1)
        learn(ours, new, 3)
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p.detach(), q.detach())
    assert [group["betas"] for group in new.param_groups] == [(0.8, 0.95)] * 2
    assert [group["ess"] for group in new.param_groups] == [20, 30]
    assert untouched["state"] == {} and new.state[ours[0]]["step"] == 11


def test_what_is_no_state_of_ivon_opt_is_refused():
    params, optimizer = pair(IVON)
    theirs, old = pair(reference.IVON)
    with pytest.raises(ValueError, match="the state is not ivon-opt's: its groups have no hess"):
        from_ivon_opt(torch.optim.AdamW([{"params": params[:2]}, {"params": params[2:]}]).state_dict(), optimizer, 1)
    learn(theirs, old, 1)
    with pytest.raises(ValueError, match="ivon-opt had 2 groups: give IVON the same"):
        from_ivon_opt(old.state_dict(), IVON(params, lr=0.1, ess=10), 1)
    with pytest.raises(ValueError, match="group 0 of ivon-opt had 10 weights, and ours has 18"):
        from_ivon_opt(
            old.state_dict(), IVON([{"params": params}, {"params": [nn.Parameter(torch.ones(3))]}], lr=0.1, ess=10), 1
        )
