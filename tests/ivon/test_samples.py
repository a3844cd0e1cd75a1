"""The samples of a step: their four states, what leads from one to another, and what is refused."""

import pytest
import torch
from torch import nn

from bayesdual.ivon import IVON
from bayesdual.ivon.keys import Keys
from bayesdual.ivon.samples import Samples, State


class Walk:
    """Samples of one parameter, with its optimizer's groups and states."""

    def __init__(self):
        self.p = nn.Parameter(torch.full((50,), 0.3))
        self.mean = self.p.detach().clone()
        optimizer = IVON([self.p], lr=0.1, ess=10)
        self.given = optimizer.param_groups, optimizer.state
        self.samples = Samples(Keys(seed=0), squared=False, independent=False)

    def theta(self):
        return self.p.detach().clone()

    def to(self, state):
        """Leads from AT_MEAN to a state."""
        if state is State.PREDICTING:
            self.prediction = self.samples.predicting(*self.given)  # which ends when nobody holds it
            self.prediction.__enter__()
        elif state is not State.AT_MEAN:
            self.samples.open(*self.given)
            self.p.grad = torch.ones(50)
        if state is State.CLOSED:
            self.samples.close()
        assert self.samples.state is state
        return self


def test_a_sample_is_opened_closed_opened_again_and_finished():
    walk = Walk()
    samples, thetas = walk.samples, []
    for _ in range(2):
        samples.open(*walk.given)
        assert samples.state is State.TRAINING
        thetas.append(walk.theta())
        walk.p.grad = torch.ones(50)
        samples.close()
        assert samples.state is State.CLOSED and torch.equal(walk.p, walk.mean)
        torch.testing.assert_close(samples.layout.buffers[walk.p], thetas[-1] - walk.mean)
        samples.close()  # there is nothing more to do
        assert samples.state is State.CLOSED
    assert torch.equal(thetas[0], thetas[1]) and not torch.equal(thetas[0], walk.mean)
    samples.finish()
    assert samples.state is State.AT_MEAN and samples.waiting
    samples.open(*walk.given)
    assert not torch.equal(walk.p, thetas[0]), "another sample"


@pytest.mark.parametrize("start", [State.AT_MEAN, State.CLOSED])
def test_a_prediction_leads_back_to_where_it_came_from(start):
    walk = Walk().to(start)
    samples = walk.samples
    eps = samples.layout.buffers[walk.p].clone() if start is State.CLOSED else None
    with samples.predicting(*walk.given):
        assert samples.state is State.PREDICTING and not torch.equal(walk.p, walk.mean)
        if start is State.CLOSED:
            assert not torch.equal(walk.theta() - walk.mean, eps)
    assert samples.state is start and torch.equal(walk.p, walk.mean)
    assert samples.waiting == (start is State.CLOSED)
    if start is State.CLOSED:
        assert torch.equal(samples.layout.buffers[walk.p], eps)


@pytest.mark.parametrize("state", [State.TRAINING, State.PREDICTING])
def test_what_needs_the_mean_is_refused_while_the_parameters_hold_a_sample(state):
    walk = Walk().to(state)
    theta = walk.theta()
    for begin in (
        lambda: walk.samples.open(*walk.given),
        lambda: walk.samples.training(*walk.given).__enter__(),
        lambda: walk.samples.predicting(*walk.given).__enter__(),
    ):
        with pytest.raises(RuntimeError, match="already hold a sample: leave it before drawing another"):
            begin()
    with pytest.raises(RuntimeError, match="the parameters hold a sample: leave it before saving"):
        walk.samples.require_mean("saving")
    assert walk.samples.state is state and torch.equal(walk.p, theta), "a refusal changes nothing"


@pytest.mark.parametrize("state", State)
def test_nothing_is_left_of_discarded_samples(state):
    walk = Walk().to(state)
    walk.samples.discard()
    assert walk.samples.state is State.AT_MEAN and not walk.samples.waiting
    assert torch.equal(walk.p, walk.mean)
    walk.samples.require_mean("saving")


def test_a_copy_begins_at_the_mean_and_with_the_same_keys():
    walk = Walk().to(State.CLOSED)
    make, arguments = walk.samples.__reduce__()
    copy = make(*arguments)
    assert copy.state is State.AT_MEAN and not copy.waiting
    assert copy.keys == Keys(seed=0, draws=1)


def test_samples_of_parameters_that_have_changed_are_dropped():
    """Their eps has another shape."""
    small, large = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4, 3))
    optimizer = IVON([small], lr=0.1, ess=10, seed=0)
    with optimizer.sampled_params(train=True):
        small.sum().backward()
    optimizer.param_groups[0]["params"][0] = large
    with (
        pytest.warns(UserWarning, match="the samples since the last step were dropped: the parameters have changed"),
        optimizer.sampled_params(train=True),
    ):
        (2 * large).sum().backward()
    optimizer.step()
    torch.testing.assert_close(optimizer.state[large]["momentum"], torch.full((4, 3), 0.2))


def test_parameters_that_were_moved_between_the_sample_and_the_step_are_refused():
    model = nn.Linear(3, 2)
    optimizer = IVON(model.named_parameters(), lr=0.1, ess=10)
    with optimizer.sampled_params(train=True):
        model(torch.ones(1, 3)).sum().backward()
    model.double()
    with pytest.raises(RuntimeError, match=r"parameter weight, of shape \(2, 3\), was moved between the sample and"):
        optimizer.step()
    optimizer.zero_grad()
    optimizer.step(lambda: model(torch.ones(1, 3, dtype=torch.float64)).sum().backward())
    assert optimizer.state[model.weight]["step"] == 1
