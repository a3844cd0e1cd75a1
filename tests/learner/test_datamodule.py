"""The stream as Lightning sees it: the order of its examples, and what is evaluated when."""

import math

import pytest
import torch
from lightning import Trainer

from bayesdual.algorithm import BayesDual
from bayesdual.learner import Learner, StreamDataModule
from bayesdual.models import MLP
from tests.streams import blobs


def labels(data):
    """The labels of an epoch, in its order."""
    return torch.cat([y for _, y, _ in data.train_dataloader()])


def test_every_epoch_has_an_order_of_its_own_which_a_checkpoint_keeps():
    data, other = StreamDataModule(blobs(), epochs=2, batch_size=16), StreamDataModule(blobs(), epochs=2, batch_size=16)
    orders = []
    while not data.finished:
        other.load_state_dict(data.state_dict())
        orders.append(labels(data) - 2 * data.experience)  # of the two classes of each experience
        assert torch.equal(orders[-1], labels(other) - 2 * data.experience)
        data.advance()
    assert len({tuple(order.tolist()) for order in orders}) == len(orders) == 6
    assert all(torch.equal(order.sort().values, orders[0].sort().values) for order in orders)


def test_old_experiences_are_evaluated_as_often_as_asked_for():
    learner = Learner(MLP(16, (8,), 8), BayesDual(memory_size=8))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    data = StreamDataModule(blobs(4, n=10), batch_size=10, evaluate_every=3)
    Trainer(**quiet, accelerator="cpu", max_epochs=-1).fit(learner, datamodule=data)
    evaluated = [[j for j, value in enumerate(row) if not math.isnan(value)] for row in learner.history.accuracy]
    # After the first one all are, as what looked at the untrained network is still there.
    assert evaluated == [[0, 1, 2, 3], [1, 2], [0, 1, 2, 3], [0, 1, 2, 3]]
    results = learner.history.results()
    assert all(math.isfinite(results[key]) for key in ("average_accuracy", "forgetting", "forward_transfer"))
    with pytest.raises(ValueError, match="data.evaluate_every is 0: give at least 1"):
        StreamDataModule(blobs(), evaluate_every=0)


def test_a_stream_says_what_it_is_and_what_cannot_be_is_refused():
    assert str(StreamDataModule(blobs(), epochs=2)) == "StreamDataModule(epochs=2, batch_size=64, experience=0)"
    for given, sentence in (
        ({"workers": -1}, "workers is -1: give 0 or more"),
        ({"batch_size": 1.5}, "a whole number"),
    ):
        with pytest.raises(ValueError, match=sentence):
            StreamDataModule(blobs(), **given)
    with pytest.raises(TypeError, match="model.network is function: give a torch.nn.Module"):
        Learner(lambda x: x, BayesDual(memory_size=2))
