"""The learning rate within an experience."""

import pytest
import torch
from torch import nn

from bayesdual.schedule import lower_learning_rate


def test_it_falls_in_a_straight_line_from_where_each_group_began_and_again_in_the_next_experience():
    one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizer = torch.optim.SGD([{"params": one.parameters(), "lr": 1.0}, {"params": two.parameters(), "lr": 3.0}])
    for _ in range(2):
        for done, share in ((0.0, 1.0), (0.5, 0.6), (1.0, 0.2)):
            lower_learning_rate(optimizer, 0.2, done)
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([share, 3 * share])


def test_an_end_of_one_leaves_other_schedules_alone():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    lower_learning_rate(optimizer, 1.0, 0.0)
    optimizer.param_groups[0]["lr"] = 0.3
    lower_learning_rate(optimizer, 1.0, 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.3
