"""The learning rate within an experience, for every host: it falls in a straight line.

lr = lr_0 (1 - (1 - lr_end) s),     s = the share of the experience's steps that are done
"""

from __future__ import annotations

from torch.optim import Optimizer


def lower_learning_rate(optimizer: Optimizer, lr_end: float, done: float) -> None:
    """Sets the learning rate of each parameter group for the next step.

    Args:
        optimizer: Its groups keep the learning rate that they had at first, lr_0, as ``initial_lr``.
        lr_end: The learning rate at the end, as a share of lr_0; 1 leaves learning rates alone.
        done: s, between 0 and 1.
    """
    if lr_end == 1:
        return
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * (1 + (lr_end - 1) * done)
