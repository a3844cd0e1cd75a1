"""What all processes of a run have to hold alike, at the start and after each experience."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from torch import nn

from bayesdual.agreement import refuse_differing
from bayesdual.algorithm import BayesDual
from bayesdual.learner.datamodule import StreamDataModule
from bayesdual.posterior import Posterior

NAMES = {"memory": "the memory", "weight_prior": "the prior of the weights", "posterior": "the posterior of all data"}


def check_start(stream: StreamDataModule) -> None:
    """Sees that all processes run the same code on the same data.

    Raises:
        ProcessesDiffer: They do not.
    """
    folder = Path(__file__).parents[1]
    held = {
        "the code of bayesdual": {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.py")},
        "the version of PyTorch or Python": (torch.__version__, platform.python_version()),
        "what data.benchmark gives": (stream.own_description(), stream.batch_size),
    }
    refuse_differing(held, "have the same installation everywhere, and a benchmark that follows from its seed.")


def check_learned(network: nn.Module, algorithm: BayesDual, posterior: Posterior | None) -> None:
    """Sees that all processes have come to hold the same when an experience has been learned.

    Buffers, such as the statistics of batch norm, are each process's own.

    Args:
        network: What was learned.
        algorithm: What is remembered of the past.
        posterior: Of the weights, by the optimizer.

    Raises:
        ProcessesDiffer: They have not.
    """
    own = {
        "the network": dict(network.named_parameters()),
        "the optimizer's posterior": None if posterior is None else posterior.state_dict(),
    }
    remembered = {NAMES.get(name, f"the algorithm's {name}"): part for name, part in algorithm.state_dict().items()}
    refuse_differing(
        own | remembered,
        "the last checkpoint is from before; go on from it with the same processors and code everywhere.",
    )
