"""The natural prior: what it does to gradients, and that both hosts ask it to."""

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from lightning import Trainer
from torch import nn

from bayesdual import BayesDual, Learner, StreamDataModule
from bayesdual.ivon import IVONByRule
from bayesdual.kprior import NaturalPrior
from bayesdual.models import MLP
from bayesdual.scenarios import PermutedDigits
from bayesdual.strategies import BayesDualStrategy
from bayesdual.stream import TensorData

pytestmark = pytest.mark.filterwarnings("ignore")  # Avalanche's own deprecations, Lightning's advice


def data(n=200, d=6):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(n, dtype=torch.int64)
    return TensorData(x, y, y, torch.arange(n))


def learned(prior, net):
    prior.update(net, lambda x, t: net(x), data(), None, "cpu", torch.Generator().manual_seed(0))
    (pair,) = prior.state_dict()["factors"].values()
    return torch.kron(pair["outputs"], pair["inputs"])


def with_gradients(net):
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    return joined(net)


def joined(net):
    """The gradient of a linear layer as one vector, its bias as the last column."""
    columns = [net.weight.grad] + ([] if net.bias is None else [net.bias.grad[:, None]])
    return torch.cat(columns, 1).flatten().clone()


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_multiplied_by_the_inverse_of_the_curvature(bias):
    """h (s h + (1 - s) P)^-1 g, with P the Kronecker product itself."""
    torch.manual_seed(0)
    net, prior, s, h = nn.Linear(6, 3, bias=bias), NaturalPrior(curvature=0.05), 0.25, 0.05
    p = learned(prior, net)
    g = with_gradients(net)
    prior.precondition(net, s)
    want = h * torch.linalg.solve(s * h * torch.eye(len(p)) + (1 - s) * p, g)
    torch.testing.assert_close(joined(net), want, atol=1e-4, rtol=1e-4)


def test_before_an_experience_is_learned_gradients_stay_as_they_are():
    net, prior = nn.Linear(6, 3), NaturalPrior()
    g = with_gradients(net)
    prior.precondition(net, 1.0)
    assert torch.equal(joined(net), g)


def test_what_the_past_does_not_hold_moves_as_without_it():
    """Rows of new classes, and layers that are not linear: their gradient is that of the new examples alone."""
    torch.manual_seed(0)
    small, prior = nn.Linear(6, 3), NaturalPrior()
    learned(prior, small)
    grown, s = nn.Linear(6, 5), 0.25
    g = with_gradients(grown).view(5, 7)
    prior.precondition(grown, s)
    got = joined(grown).view(5, 7)
    torch.testing.assert_close(got[3:], g[3:] / s)
    assert (got[:3] - g[:3] / s).abs().max() > 0.1


class Counting(NaturalPrior):
    """Notes the share of each step."""

    def __init__(self):
        super().__init__()
        self.shares = []

    def precondition(self, module, share):
        assert all(p.grad is not None for p in module.parameters())
        self.shares.append(round(share, 3))
        super().precondition(module, share)


def test_both_hosts_ask_for_it_once_a_step():
    lightning, avalanche = (BayesDual(memory_size=0, weight_prior=Counting()) for _ in range(2))
    trainer = Trainer(
        max_epochs=-1,
        accumulate_grad_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    stream = StreamDataModule(PermutedDigits, epochs=1, batch_size=360)
    trainer.fit(Learner(MLP(64, [8]), lightning), stream)
    assert lightning.weight_prior.shares == [share for k in range(1, 6) for share in 2 * [round(1 / k, 3)]]
    benchmark, net = PermutedDigits(2), MLP(64, [8])
    strategy = BayesDualStrategy(
        model=net,
        algorithm=avalanche,
        optimizer=IVONByRule().make(net.parameters(), 1440, 4),
        train_mb_size=360,
        evaluator=EvaluationPlugin(),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert avalanche.weight_prior.shares == [1.0] * 4 + [0.5] * 4


def test_it_is_named_in_the_algorithm_and_says_what_it_cannot_take():
    assert type(BayesDual(memory_size=0, weight_prior="natural").weight_prior) is NaturalPrior
    with pytest.raises(ValueError, match="NaturalPrior's curvature is 0: give a positive number"):
        NaturalPrior(curvature=0)
    with pytest.raises(ValueError, match="""give "kronecker", "natural", a prior of the weights, or None"""):
        BayesDual(weight_prior="natrual")
