"""What schedulers send to a job before they take its machine away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
