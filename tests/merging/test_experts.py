"""Experts of a stream, from one base, merged after each; and a last layer fitted again."""

import copy

import pytest
import torch
from torch import nn

from bayesdual.merging import Experts, merge, refit_last_layer
from bayesdual.posterior import kronecker_curvature

CLASSES = range(4)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).eval()


def moved(module, seed):
    other, generator = copy.deepcopy(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return other


def inputs(seed):
    return torch.randn(30, 5, generator=torch.Generator().manual_seed(seed))


def learned(method, classes, order=(1, 2, 3)):
    experts, base = Experts(method), network()
    experts.begin(base)
    experts.add(base, inputs(0), classes[0], torch.Generator().manual_seed(0))
    for t in order:
        experts.add(moved(base, t), inputs(t), classes[t], torch.Generator().manual_seed(t))
    return experts, base


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "fisher", "regmean", "gradient_matching"])
def test_what_they_come_to_is_merge_of_all_whatever_their_order(method):
    experts, base = learned(method, [CLASSES] * 4)
    networks = [base, *(moved(base, t) for t in (1, 2, 3))]
    h = [
        kronecker_curvature(m, inputs(t), torch.ones(30), generator=torch.Generator().manual_seed(t))
        for t, m in enumerate(networks)
    ]
    expected = {  # the base is one of them in a mean, and the base's curvature in gradient matching
        "average": lambda: merge(base, networks, method="average"),
        "task_arithmetic": lambda: merge(base, networks[1:], method="task_arithmetic"),
        "fisher": lambda: merge(base, networks, method="fisher", curvatures=h),
        "regmean": lambda: merge(base, networks, method="regmean", curvatures=h),
        "gradient_matching": lambda: merge(base, networks[1:], curvatures=h[1:], base_curvature=h[0]),
    }[method]().state_dict()
    for order in ((1, 2, 3), (3, 1, 2)):
        for name, value in learned(method, [CLASSES] * 4, order)[0].merged().items():
            torch.testing.assert_close(value, expected[name], atol=1e-3, rtol=1e-3)


def test_the_next_expert_begins_at_the_base_and_not_at_what_was_merged():
    experts, base = learned("average", [CLASSES] * 4)
    other = moved(base, 9)
    experts.begin(other)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), base.parameters(), strict=True))
    with torch.no_grad():
        other[0].weight.zero_()
    assert bool(experts.base["0.weight"].any()), "what is carried is a copy"


def test_alone_the_base_is_what_there_is():
    experts, base = learned("regmean", [CLASSES], order=())
    assert all(torch.equal(value, base.state_dict()[name]) for name, value in experts.merged().items())
    with pytest.raises(RuntimeError, match="no base yet"):
        Experts().merged()


@pytest.mark.parametrize("method", ["average", "regmean", "gradient_matching"])
def test_of_disjoint_classes_each_row_of_the_head_is_that_of_its_expert(method):
    experts, base = learned(method, [[0], [1], [2], [3]])
    head = experts.merged()["2.weight"]
    for c in CLASSES:
        owner = base if c == 0 else moved(base, c)
        assert torch.equal(head[c], owner[2].weight[c])
    below = experts.merged()["0.weight"]
    assert not any(torch.equal(below, m[0].weight) for m in (base, *(moved(base, t) for t in (1, 2, 3))))


def test_what_is_carried_goes_through_a_file(tmp_path):
    experts, _ = learned("gradient_matching", [[0], [1], [2], [3]])
    torch.save(experts.state_dict(), tmp_path / "experts.pt")
    again = Experts("gradient_matching")
    again.load_state_dict(torch.load(tmp_path / "experts.pt", weights_only=True))
    assert again.memory_bytes() == experts.memory_bytes()
    assert all(torch.equal(value, experts.merged()[name]) for name, value in again.merged().items())


def test_a_network_that_has_grown_is_refused():
    experts, _ = learned("average", [CLASSES] * 4)
    grown = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 5)).eval()
    with pytest.raises(ValueError, match="a head that grows cannot be merged"):
        experts.add(grown, inputs(5), [4], torch.Generator())


def test_a_head_fitted_again_is_at_the_minimum_and_nothing_else_has_moved():
    module, x = network(), inputs(7)
    y = torch.arange(30) % 4
    before = copy.deepcopy(module)
    refit_last_layer(module, x, y, pull=0.1)
    assert torch.equal(module[0].weight, before[0].weight)
    loss = nn.functional.cross_entropy(module(x), y) + 0.05 * sum(
        (p - old).square().sum() for p, old in zip(module[2].parameters(), before[2].parameters(), strict=True)
    )
    gradients = torch.autograd.grad(loss, [*module[2].parameters()])
    assert max(float(g.abs().max()) for g in gradients) < 1e-3
    with pytest.raises(ValueError, match="pull is 0"):
        refit_last_layer(module, x, y, pull=0)
    with pytest.raises(ValueError, match="not the output of one linear layer"):
        refit_last_layer(nn.Sequential(nn.Linear(5, 4), nn.Tanh()), x, y)
