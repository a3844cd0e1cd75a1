"""IVON in loops that know nothing of samples, by hooks of the model."""

import copy
import pickle

import pytest
import torch
from torch import nn

from bayesdual.ivon import IVON, sample_in_forward

X = torch.linspace(-1, 1, 24).view(8, 3)


def problem(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return model, IVON(model.parameters(), lr=0.1, ess=8, betas=(0.9, 0.9), seed=0, **settings)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def loss(model, rows=slice(None)):
    return (model(X[rows]) ** 2).mean()


def at_samples(steps=3):
    """What the idiom of the context gives, step by step."""
    model, optimizer = problem()
    means = []
    for _ in range(steps):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            loss(model).backward()
        optimizer.step()
        means.append(weights(model))
    return means


@pytest.mark.parametrize("zero", ["model", "optimizer"])
def test_a_loop_that_knows_nothing_of_samples(zero):
    model, optimizer = problem()
    handle = sample_in_forward(model, optimizer)
    for mean in at_samples():
        loss(model).backward()
        optimizer.step()
        (model if zero == "model" else optimizer).zero_grad()
        assert torch.equal(weights(model), mean)
    handle.remove()
    loss(model)
    assert torch.equal(weights(model), mean)


def test_accumulation_with_an_evaluation_and_a_checkpoint_in_between():
    model, optimizer = problem()
    before = weights(model)
    with sample_in_forward(model, optimizer):
        for mean in at_samples():
            for rows in (slice(0, 4), slice(4, 8)):
                (loss(model, rows) / 2).backward()
                assert not torch.equal(weights(model), before)
                saved = model.state_dict()
                assert torch.equal(torch.cat([t.flatten() for t in saved.values()]), before)
                model.eval()
                model(X)
                assert torch.equal(weights(model), before)
                with optimizer.sampled_params():
                    model(X)
                    assert not torch.equal(weights(model), before)
                model.train()
                with torch.no_grad():
                    model(X)
                assert torch.equal(weights(model), before)
            optimizer.step()
            optimizer.zero_grad()
            before = weights(model)
            torch.testing.assert_close(before, mean)


def test_the_mean_comes_back_where_a_loop_is_left():
    model, optimizer = problem()
    before = weights(model)
    with pytest.raises(KeyError), sample_in_forward(model, optimizer):
        loss(model).backward()
        raise KeyError
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_the_model_has_no_part_in_it(copied):
    model, optimizer = problem()
    with sample_in_forward(model, optimizer):
        twin = copied(model)
        loss(model)
        sample = weights(model)
        loss(twin)
        twin.eval()(X)
        twin.state_dict()
        assert torch.equal(weights(model), sample) and torch.equal(weights(twin), weights(problem()[0]))


def test_several_samples_a_step_are_refused():
    with pytest.raises(ValueError, match="mc_samples=2, but a loop that knows nothing of samples"):
        sample_in_forward(*problem(mc_samples=2))


def test_a_compiled_model():
    model, optimizer = problem()
    compiled = torch.compile(model, backend="eager")
    with sample_in_forward(compiled, optimizer):
        for mean in at_samples(2):
            loss(compiled).backward()
            assert not torch.equal(weights(model), mean)
            compiled.eval()(X)
            compiled.train()
            loss(compiled)
            optimizer.step()
            optimizer.zero_grad()
            torch.testing.assert_close(weights(model), mean)
