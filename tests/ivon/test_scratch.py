"""Temporary tensors: the same one again, and never that of another thread."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

from bayesdual.ivon.scratch import spare

CPU = torch.device("cpu")


def test_is_the_same_memory_again_and_grows():
    first = spare("test", 10, torch.float32, CPU)
    assert spare("test", 7, torch.float32, CPU).data_ptr() == first.data_ptr()
    assert spare("test", 10, torch.float64, CPU).dtype == torch.float64
    assert spare("another", 10, torch.float32, CPU).data_ptr() != first.data_ptr()
    assert spare("test", 1000, torch.float32, CPU).shape == (1000,)


def test_threads_do_not_share():
    together = Barrier(2)

    def fill(value):
        mine = spare("test", 1000, torch.float32, CPU).fill_(value)
        together.wait(10)
        return bool((mine == value).all())

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(fill, (1.0, 2.0)))
