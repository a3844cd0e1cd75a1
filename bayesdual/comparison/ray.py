"""Runs spread over a Ray cluster."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from bayesdual.comparison.executors import Function, Job, attempt

CONNECTION_SECONDS = 10


class RayCluster:
    """The processors of a Ray cluster, of which each job takes one. Every node needs this package, and the data.

    Args:
        address: The cluster's, as ``ray.init`` takes it: ``HOST:PORT``, ``ray://HOST:PORT``, or ``auto``.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str) -> None:
        try:
            ray = import_module("ray")  # without types
        except ImportError:
            raise ValueError("--ray needs Ray, which is not installed: pip install 'bayesdual[ray]'.") from None
        self._ray = ray
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
        except Exception as error:  # many kinds, by how far it came
            raise ValueError(f"--ray {address}: there is no Ray cluster to be reached ({error}).") from None

    @property
    def slots(self) -> int:
        """Processors of the cluster, which may grow."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def __call__(self, function: Function, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any, str]]:
        """See :class:`Executor`."""
        supply, ray = iter(jobs), self._ray
        remote = ray.remote(num_cpus=1, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})(_attempt_on_node)
        running: dict[Any, Job] = {}
        try:
            while True:
                while len(running) < self.slots and (job := next(supply, None)) is not None:
                    running[remote.remote(function, job)] = job
                if not running:
                    return
                for reference in ray.wait(list(running))[0]:
                    outcome, where = ray.get(reference)
                    yield running.pop(reference), outcome, where
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def _knock(address: str) -> None:
    """Sees whether anybody listens at HOST:PORT, which Ray would try for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECTION_SECONDS).close()


def _attempt_on_node(function: Function, job: Any) -> tuple[Any, str]:
    ray = import_module("ray")
    return attempt(function, job), f"node {ray.get_runtime_context().get_node_id()}"
