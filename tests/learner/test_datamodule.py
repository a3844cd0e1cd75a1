"""The stream as Lightning sees it: the order of its examples."""

import torch

from bayesdual.learner import StreamDataModule
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
