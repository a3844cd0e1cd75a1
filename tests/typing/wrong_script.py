"""What a type checker has to find in a user's script: each line marked so, and no other."""

import torch

from bayesdual import IVON, BayesDual, Lerner  # wrong  # noqa: F401
from bayesdual.measures import StreamMetric, forgeting  # wrong  # noqa: F401
from bayesdual.scenarios import SplitDigit  # wrong  # noqa: F401
from bayesdual.strategies import BayesDualPlugin
from bayesdual.stream import TensorData

weights = [torch.zeros(3, requires_grad=True)]
IVON(weights, lr="fast", ess=100)  # wrong
BayesDual(memory_sise=100)  # wrong
BayesDual(memory_size=100).begin_experience(torch.zeros(3))  # wrong
StreamMetric(1).compute()["acuracy"]  # wrong
BayesDualPlugin("full")  # wrong
TensorData(weights[0], weights[0], weights[0], weights[0]).inputs("all")  # wrong
