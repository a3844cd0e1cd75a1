"""What schedulers send to a job before they take its machine away, and what stops a command before it has begun."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGTERM_STATUS = 128 + signal.SIGTERM


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """Has SIGTERM end a command in an orderly way, with status 143, where nobody else has taken it over.

    Lightning takes it over while it learns, to stop after the batch under way, and calls this one along.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        if signal.getsignal(signal.SIGTERM) is end:
            raise SystemExit(SIGTERM_STATUS)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def preemption_as_sigterm() -> Iterator[None]:
    """Has SIGUSR1 (SLURM's ``--signal=USR1@90``) stop a run as SIGTERM does, after the batch under way.

    Lightning's own answer under SLURM writes a checkpoint at once, in the middle of a step, where weights are a sample.
    """
    usable = hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread()
    if not usable:  # Windows, or a caller's thread
        yield
        return
    before = signal.signal(signal.SIGUSR1, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
