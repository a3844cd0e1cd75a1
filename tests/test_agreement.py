"""A hash that tells apart whatever differs, and processes that say on each of them that they do."""

import socket

import pytest
import torch
import torch.distributed as dist

from bayesdual.agreement import ProcessesDiffer, digest_of, refuse_differing

STATE = {"x": torch.arange(6.0).view(2, 3), "counts": [[0, 1, 5]], "name": "a", "none": None}


def test_the_hash_is_of_content_and_not_of_where_or_in_which_order_it_stands():
    strided = STATE["x"].T.contiguous().T
    other = {"none": None, "name": "a", "counts": ((0, 1, 5),), "x": strided}
    assert digest_of(STATE) == digest_of(other)


@pytest.mark.parametrize(
    "change",
    [
        {"x": torch.arange(6.0).view(3, 2)},
        {"x": torch.arange(6.0, dtype=torch.float64).view(2, 3)},
        {"x": torch.arange(6.0).view(2, 3).nextafter(torch.tensor(9.0))},
        {"counts": [[0, 15]]},
        {"name": "b"},
        {"none": 0},
        {"more": torch.zeros(0)},
        {"x": torch.arange(6.0).view(2, 3).view(torch.int32)},  # the same bytes
    ],
)
def test_the_hash_is_another_of_anything_else(change):
    assert digest_of(STATE) != digest_of({**STATE, **change})


def compare(rank, port):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    refuse_differing({"the memory": STATE}, "never said")
    with pytest.raises(ProcessesDiffer, match="the posterior of process 1 is not that of process 0: stop."):
        refuse_differing({"the memory": STATE, "the posterior": {"mean": torch.tensor(rank)}}, "stop.")


def test_every_process_refuses_what_differs_on_one():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(compare, (port,), nprocs=2, start_method="fork")
    refuse_differing({"alone": object()}, "never said")
