"""IVON.suggest: settings measured before training."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from bayesdual.ivon import IVON, suggest
from bayesdual.scenarios import digits


def loader_of(*tensors, batch_size=16, seed=0, **others):
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(*tensors), batch_size, shuffle=True, generator=generator, **others)


def squares(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def problem():
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))
    return model, loader_of(x, x[:, :1].sin())


# -- what is measured


def test_the_noise_costs_what_it_should_by_the_variance_of_gradients():
    """Of a linear loss, whose gradients are the examples."""
    x = torch.randn(256, 500, generator=torch.Generator().manual_seed(0)) * 3
    weights = nn.Linear(500, 1, bias=False)
    found = {}
    for batch_size in (4, 16):
        batches = (weights(part).mean() for part in x.split(batch_size)[:16])
        found[batch_size], _ = suggest.curvature([weights.weight], ((b, batch_size) for b in batches), 256)
    exact = float(x.var(0).sum())
    assert found == {4: pytest.approx(exact, rel=0.05), 16: pytest.approx(exact, rel=0.1)}


def test_a_steeper_loss_gets_a_smaller_learning_rate_and_less_noise():
    model, loader = problem()
    flat = IVON.suggest(model, squares, loader, 100)
    steep = IVON.suggest(model, lambda *args: 4 * squares(*args), loader, 100)
    assert steep["lr"] == pytest.approx(flat["lr"] / 4, rel=0.35)  # learning rates are tried in steps of a tenth
    assert steep["hess_init"] == pytest.approx(16 * flat["hess_init"], rel=1e-3)


def test_the_length_of_training_sets_how_far_the_rate_goes_and_how_slow_the_hessian_is():
    model, loader = problem()
    short, longer, long, longest = (IVON.suggest(model, squares, loader, s) for s in (100, 10_000, 40_000, 10**7))
    assert short["lr"] > longer["lr"] == pytest.approx(2 * long["lr"])
    assert [s["betas"][1] for s in (short, longer, long, longest)] == pytest.approx([0.9999, 0.9999, 0.999975, 0.99999])
    assert [IVON.suggest(model, squares, loader, s)["betas"][0] for s in (1, 28, 100)] == pytest.approx([0, 0.5, 0.8])
    assert short["ess"] == 256 and short["max_norm"] >= 3


def test_batches_that_are_all_the_same_leave_the_noise_to_the_rule():
    model, loader = problem()
    whole = DataLoader(loader.dataset, 256)
    model[3].p = 0.0
    assert IVON.suggest(model, squares, whole, 100)["hess_init"] == pytest.approx(161 / (45 * 256))


def test_it_trains_where_the_usual_start_has_hardly_begun():
    data = digits()
    x, y = data.train_x.flatten(1)[:512].float() / 16, data.train_y[:512]
    loader, losses = loader_of(x, y, batch_size=64), {}

    def loss(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    for way in ("suggested", "usual"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        settings = IVON.suggest(model, loss, loader, 40) if way == "suggested" else {"lr": 0.1, "ess": 512}
        optimizer = IVON(model.parameters(), **settings, seed=0)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        for _ in range(5):
            for batch in loader:
                with optimizer.sampled_params(train=True):
                    optimizer.zero_grad()
                    loss(model, batch).backward()
                optimizer.step()
                scheduler.step()
        losses[way] = loss(model, (x, y)).item()
    assert losses["suggested"] < 0.6 * losses["usual"]


# -- what is left


def test_everything_is_as_it_was():
    model, loader = problem()
    model[1].eval()
    squares(model, next(iter(loader))).backward()
    model[4].bias.requires_grad_(False)
    tensors = {n: t.clone() for n, t in model.state_dict().items()}
    grads = {n: (p.grad, p.grad.clone()) for n, p in model.named_parameters()}
    modes = [m.training for m in model.modules()]
    draws = []
    for suggested in (False, True):
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)
        loader.generator.manual_seed(3)
        if suggested:
            first = IVON.suggest(model, squares, loader, 100)
        draws.append([torch.rand(()).item(), np.random.rand(), random.random(), next(iter(loader))[0].sum().item()])
    assert draws[0] == draws[1]
    assert all(torch.equal(t, tensors[n]) for n, t in model.state_dict().items())
    assert all(p.grad is grads[n][0] and torch.equal(p.grad, grads[n][1]) for n, p in model.named_parameters())
    assert [m.training for m in model.modules()] == modes
    loader.generator.manual_seed(3)
    torch.manual_seed(3)
    assert IVON.suggest(model, squares, loader, 100) == first


def test_it_is_as_it_was_where_the_loss_fails():
    model, loader = problem()
    tensors = {n: t.clone() for n, t in model.state_dict().items()}
    calls = []

    def failing(model, batch):
        calls.append(0)
        if len(calls) == 40:  # in the sweep, inside a sample
            raise KeyError
        return squares(model, batch)

    with pytest.raises(KeyError):
        IVON.suggest(model, failing, loader, 100)
    assert all(torch.equal(t, tensors[n]) for n, t in model.state_dict().items())


# -- bad input


class Stream(IterableDataset):
    def __iter__(self):
        return iter(problem()[1].dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loader": []}, "does not say how many examples there are: give examples"),
        ({"loader": [], "examples": 5}, "the loader gives no batch"),
        ({"loader": DataLoader(Stream(), 16)}, "give examples"),
        ({"examples": 0}, "there are 0 examples"),
        ({"steps": 0}, "steps is 0: give the number of steps"),
        ({"loss": lambda m, b: (m(b[0]) - b[1]).square()}, r"a tensor of shape \(16, 1\): it has to be one number"),
        ({"loss": lambda m, b: squares(m, b).item()}, "the loss gives a float"),
        ({"loss": lambda m, b: squares(m, b).detach()}, "depends on the parameters"),
        ({"loss": lambda m, b: squares(m, b) * float("nan")}, "the loss of a batch is nan before training"),
        ({"loss": lambda m, b: squares(m, b) * 0}, "the loss falls at no learning rate"),
        ({"model": nn.Flatten()}, "no parameter that is learned"),
        ({"loader": [[1.0]], "examples": 5, "loss": lambda m, b: m[0].weight.sum()}, "a batch has no tensor with a"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_sentence(change, message):
    model, loader = problem()
    arguments = {"model": model, "loss": squares, "loader": loader, "steps": 100} | change
    with pytest.raises(ValueError, match=message):
        IVON.suggest(**arguments)


def test_a_stream_and_batches_that_are_mappings():
    model, loader = problem()
    told = IVON.suggest(model, squares, DataLoader(Stream(), 16), 100, examples=256)
    assert told["ess"] == 256
    named = [{"x": x, "y": y} for x, y in loader]
    by_name = IVON.suggest(model, lambda m, b: squares(m, (b["x"], b["y"])), named, 100, examples=256)
    assert by_name["hess_init"] > 0
