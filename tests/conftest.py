"""One thread for every test: on small tensors more of them are far slower, above all on a machine that is busy."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import torch

torch.set_num_threads(1)
