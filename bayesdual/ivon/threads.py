"""Work on many blocks, on a CPU shared out to threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier

import torch

from bayesdual.ivon.blocks import Block

FEW_BLOCKS = 4  # so many are done before other threads have woken up


def for_each(blocks: Sequence[Block], work: Callable[[Block], None], threads: bool = True) -> None:
    """Does the work on every block; on a CPU threads share them, unless the work has threads of its own."""
    hands = min(torch.get_num_threads(), len(blocks)) if threads else 1
    if hands < 2 or len(blocks) < FEW_BLOCKS or blocks[0].params[0].device.type != "cpu":
        for block in blocks:
            work(block)
        return
    queue = iter(blocks)  # hands each block to one thread

    def drain() -> None:
        with torch.no_grad():  # the mode is the thread's own
            for block in queue:
                work(block)

    pool = _pool(os.getpid(), torch.get_num_threads())
    tasks = [pool.submit(drain) for _ in range(hands)]
    try:
        wait(tasks)
    except BaseException:  # interrupted: nobody may work on the parameters after this
        wait(tasks)
        raise
    for task in tasks:
        task.result()


@lru_cache(maxsize=4)
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    """A pool of this process (threads do not survive a fork), whose threads do not share out an operation again."""
    started = Barrier(threads)

    def start() -> None:
        torch.get_num_threads()  # lets PyTorch set up the thread before it is told otherwise
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="ivon")
    wait([pool.submit(start) for _ in range(threads)])
    torch.set_num_threads(threads)  # what other threads begin with
    return pool
