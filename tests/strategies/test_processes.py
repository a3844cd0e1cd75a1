"""Avalanche's strategies in two processes: seeded differently, they hold the same."""

import socket

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bayesdual.agreement import ProcessesDiffer, digest_of
from tests.avalanche_streams import benchmark, mlp
from tests.strategies.test_strategy import adam, ivon, naive, strategy


def work(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    stream = benchmark().train_stream[:2]
    held = []
    for host, optimizer in ((strategy, ivon), (naive, adam)):
        model = DistributedDataParallel(mlp())
        torch.manual_seed(rank)  # as users forget to seed
        made = host(model, optimizer, memory_size=12)
        for experience in stream:
            made.train(experience)
        held.append((digest_of(made.algorithm.state_dict()), len(made.algorithm.memory)))
        with torch.no_grad():
            next(made.model.parameters()).add_(rank)
        with pytest.raises(ProcessesDiffer, match="the network of process 1 is not that of process 0: seed them"):
            made.train(stream[0])
    torch.save(held, f"{folder}/{rank}.pt")


def test_processes_seeded_differently_keep_the_same_and_stop_where_they_do_not(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(work, (port, tmp_path), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first == second and [n for _, n in first] == [12, 12]
