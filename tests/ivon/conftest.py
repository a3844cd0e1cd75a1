"""Two processes over gloo, started once for all tests that need them: to start them takes longer than what they do."""

import os
import socket
import warnings

import pytest
import torch
import torch.distributed as dist


def work(rank, port, directory):
    from tests.ivon import test_processes, test_shards

    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results = {"shards": test_shards.work(rank, directory), "processes": test_processes.work(rank, directory)}
    torch.save(results, f"{directory}/{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """What each of them found, by the module of tests."""
    directory = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(directory)), nprocs=2)
    return [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
