"""Where in an epoch a run stands, so that it can go on from there, and not only from the end of an epoch.

A checkpoint says how many batches of the epoch under way are done. The run that goes on builds the loader of the same
order of examples from there on, and to Lightning that rest is an epoch of its own, with fewer batches: its own way to
go on in the middle of one leaves out what happens when an epoch begins.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from bayesdual.learner.datamodule import StreamDataModule
from bayesdual.random_state import random_state, set_random_state


def batches_done(trainer: Any, stream: StreamDataModule) -> int | None:
    """How many batches of the epoch under way are done, on each process.

    None where a run could not go on from: in the middle of a step, or of the batches whose gradients are accumulated,
    and after the last batch, when what ends an epoch and an experience is still to come.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    done = progress.current.processed
    in_a_step = progress.current.ready != done or done % trainer.accumulate_grad_batches
    return None if in_a_step or progress.is_last_batch else stream.batch + done


def share_done(trainer: Any, stream: StreamDataModule, batch: int) -> float:
    """Which share of an epoch is done before a batch, counted from where the loader begins."""
    return (stream.batch + batch) / (stream.batch + trainer.num_training_batches)


def rest_as_an_epoch(loops: dict[str, Any]) -> None:
    """Makes of a checkpoint's loops, saved after a batch, those of a run whose next epoch is yet to begin."""
    for progress in loops["epoch_progress"].values():
        progress["ready"] = progress["started"] = progress["processed"]
    for progress in loops["epoch_loop.batch_progress"].values():
        if isinstance(progress, dict):
            progress["completed"] = progress["processed"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1  # which Lightning counts after it has saved


def random_states(trainer: Any) -> list[dict[str, Any]]:
    """The states of the global random generators of all processes; to be called on each."""
    states: list[Any] = [random_state()] * trainer.world_size
    if trainer.world_size > 1 and dist.is_initialized():  # processes that were forked for a fit have ended after it
        dist.all_gather_object(states, states[0])
    return states


def set_random_state_of(rank: int, states: list[dict[str, Any]] | dict[str, Any]) -> None:
    """Sets the state of the process's own generators; of more processes than there were, some get the same.

    Args:
        rank: Which process this is.
        states: What :func:`random_states` gave, or the state of the first process alone, as checkpoints of before have.
    """
    set_random_state(states if isinstance(states, dict) else states[rank % len(states)])
