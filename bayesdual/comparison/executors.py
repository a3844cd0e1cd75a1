"""Many jobs on many processors: by processes on this machine, or spread over a Ray cluster.

Both executors take an iterable of jobs, which they draw from only when a processor is free, and yield each job with
its outcome as it finishes. Whoever iterates can thus stop the supply, and still gets what is running.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIG_IGN, SIGINT, SIGTERM, getsignal, signal
from typing import Any, Protocol, TypeVar

from bayesdual.configuration import failure

Job = TypeVar("Job")
Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Failure:
    """What became of a job that raised an exception.

    Attributes:
        kind: Name of the exception's class.
        sentence: What went wrong.
        traceback: Where, for ``--debug``.
    """

    kind: str
    sentence: str
    traceback: str


class Executor(Protocol):
    """Runs ``function`` on each job, and yields (job, what it returned or a ``Failure``, where it ran)."""

    @property
    def slots(self) -> int:
        """How many jobs it runs at a time."""
        ...

    def __call__(self, function: Function, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any, str]]: ...


def attempt(function: Function, job: Any) -> Any:
    """The value of a function, or the ``Failure`` that it ended in."""
    try:
        return function(job)
    except Exception as error:  # whatever it is, it must reach the other process
        return Failure(type(error).__name__, failure(error, []), traceback.format_exc())


class LocalProcesses:
    """Processes on this machine, each of which makes one job after the other.

    They ignore Ctrl-C, which is for the process that started them, and die with it, even if it was killed.

    Args:
        slots: How many.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def __call__(self, function: Function, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any, str]]:
        """See :class:`Executor`.

        Raises:
            RuntimeError: A process died, for example because it ran out of memory.
        """
        supply = iter(jobs)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the processes load PyTorch
        pool = ProcessPoolExecutor(self.slots, multiprocessing.get_context("spawn"), _follow_parent)
        running: dict[Any, Job] = {}
        try:
            while True:
                while len(running) < self.slots and (job := next(supply, None)) is not None:
                    with _signals_wait():  # submit starts a process
                        running[pool.submit(_attempt_here, function, job)] = job
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome, where = future.result()
                    yield running.pop(future), outcome, where
        except BrokenProcessPool:
            raise RuntimeError(
                "a process that made runs died, perhaps for want of memory: start again, with fewer --workers."
            ) from None
        finally:
            _end(pool)


def _attempt_here(function: Function, job: Any) -> tuple[Any, str]:
    return attempt(function, job), f"process {os.getpid()}"


def _follow_parent() -> None:
    """Makes a process leave Ctrl-C to the one that started it, and end with that one."""
    signal(SIGINT, SIG_IGN)

    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back: a process that is given up while it is being started dies complaining."""
    before = {number: getsignal(number) for number in (SIGINT, SIGTERM)}
    handlers = {number: handler for number, handler in before.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    for number in handlers:
        signal(number, lambda signum, frame: came.append(signum))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal(number, handler)
    if came:
        os.kill(os.getpid(), came[0])


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
