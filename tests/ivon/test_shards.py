"""IVON with parameters that two processes share out by ``fully_shard`` (FSDP2), over gloo."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bayesdual.ivon import IVON, layout, sample_in_forward
from bayesdual.posterior import Posterior

SETTINGS = {"lr": 0.05, "ess": 64, "betas": (0.9, 0.9), "weight_decay": 0.01, "seed": 7}
WAYS = {
    "price": {},
    "gradsq": {"hess_approx": "gradsq"},
    "two samples, clipped": {"mc_samples": 2, "max_norm": 0.05},
    "each parameter clipped": {"max_rms": 0.02},
    "bfloat16": {},
}
STEPS, ROOM = 4, 16  # many blocks, of which one process may have nothing


def network(way):
    """Five rows, of which the second process has two, and one, of which it has none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    model[2].bias.requires_grad_(False)
    return model.to(torch.bfloat16 if way == "bfloat16" else torch.float64)


def loss(model, rows, way):
    x = torch.linspace(-1, 1, 48, dtype=model[0].weight.dtype).view(8, 6)[rows]
    return (model(x.cos()) - 1).square().mean()


def learn(model, optimizer, rows, way, steps=STEPS):
    """With evaluations and predictions in between, which gather the parameters."""
    for i in range(steps):

        def closure():
            optimizer.zero_grad()
            value = loss(model, rows, way)
            value.backward()
            return value

        with torch.no_grad():
            loss(model, rows, way)  # after which the outermost module keeps the gathered parameters
        if i == 2:
            with torch.no_grad(), optimizer.sampled_params():
                sample = loss(model, slice(None), way)
            mean = loss(model, slice(None), way).detach()
            for p in model.parameters():
                p.grad = None
        optimizer.step(closure)
    return sample, mean


def result(model, optimizer):
    """Everything that was learned, whole."""
    posterior = Posterior.from_optimizer(model, optimizer)
    momentum = [optimizer.state[p]["momentum"] for p in model.parameters() if p.requires_grad]
    momentum = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in momentum]
    return posterior.mean | posterior.precision | {str(i): t.clone() for i, t in enumerate(momentum)}


def in_one_process(way):
    model = network(way)
    optimizer = IVON(model.parameters(), **SETTINGS, **WAYS[way])
    return *learn(model, optimizer, slice(None), way), result(model, optimizer)


def sharded(way, **settings):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, mesh = network(way), init_device_mesh("cpu", (2,))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, IVON(model.parameters(), **SETTINGS | settings, **WAYS[way])


def checkpoint(directory):
    """What goes on after a distributed checkpoint, and what would have gone on without."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model, optimizer = sharded("price")
    rows = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    learn(model, optimizer, rows, "price", steps=3)
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"weights": weights, "optimizer": state}, checkpoint_id=f"{directory}/checkpoint")
    other, resumed = sharded("price", seed=9)
    weights, state = get_state_dict(other, resumed)
    saved = {"weights": weights, "optimizer": state}
    dcp.load(saved, checkpoint_id=f"{directory}/checkpoint")
    set_state_dict(other, resumed, model_state_dict=saved["weights"], optim_state_dict=saved["optimizer"])
    results = []
    for one in ((model, optimizer), (other, resumed)):
        learn(*one, rows, "price", steps=3)
        results.append(result(*one))
    return results


def by_hooks(rows):
    """A loop that knows nothing of samples, with clipping by anybody."""
    model, optimizer = sharded("price")
    with sample_in_forward(model, optimizer):
        for _ in range(3):
            loss(model, rows, "price").backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    return result(model, optimizer)


def refusals():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    messages = []
    mesh = init_device_mesh("cpu", (2,))
    for placement, noise in ((Shard(1), "shared"), (Shard(0), "independent")):
        p = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [placement]))
        try:
            IVON([p], lr=0.1, ess=10, noise=noise)
        except ValueError as error:
            messages.append(str(error))
    return messages


def work(rank, directory):
    """What one of two processes does."""
    rows, room = slice(4 * rank, 4 * rank + 4), layout.CPU_BLOCK
    layout.CPU_BLOCK = ROOM
    results = {"refused": refusals(), "hooks": by_hooks(rows), "checkpoint": checkpoint(directory)}
    for way in WAYS:
        model, optimizer = sharded(way)
        results[way] = (*learn(model, optimizer, rows, way), result(model, optimizer))
    layout.CPU_BLOCK = room
    return results


@pytest.fixture
def results(two_processes):
    return [found["shards"] for found in two_processes]


def assert_close(ours, expected, tolerance):
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_are_one(results, way, monkeypatch):
    monkeypatch.setattr(layout, "CPU_BLOCK", ROOM)
    sample, mean, learned = in_one_process(way)
    tolerance = 0.02 if way == "bfloat16" else 1e-9  # gradients of 16 bits are added in another order
    for theirs in results:
        torch.testing.assert_close(theirs[way][0], sample, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(theirs[way][1], mean, rtol=tolerance, atol=tolerance)
        assert_close(theirs[way][2], learned, tolerance)
    assert sample != mean


def test_a_loop_that_knows_nothing_of_samples(results, monkeypatch):
    monkeypatch.setattr(layout, "CPU_BLOCK", ROOM)
    model = network("price")
    optimizer = IVON(model.parameters(), **SETTINGS)
    for _ in range(3):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            loss(model, slice(None), "price").backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    for theirs in results:
        assert_close(theirs["hooks"], result(model, optimizer), 1e-9)


def test_a_distributed_checkpoint_goes_on_to_the_bit(results):
    for theirs in results:
        assert_close(theirs["checkpoint"][1], theirs["checkpoint"][0], 0.0)


def test_what_cannot_be_is_refused(results):
    for theirs in results:
        cut, noise = theirs["refused"]
        assert "is sharded as (Shard(dim=1),): IVON takes parameters that are cut once" in cut
        assert 'gradients are averaged: give noise="shared"' in noise
