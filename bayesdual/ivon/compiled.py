"""Arithmetic on large tensors as one kernel that goes through memory once, by ``torch.compile``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch


@lru_cache
def fused(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` compiled, for any size of its tensors; where it cannot be compiled, as it is, after a warning.

    Args:
        function: Works in place on tensors, so that a failure to compile leaves them as they were.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second, which those who never compile are spared

    compiled = torch.compile(function, dynamic=True)
    failed = False

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        nonlocal failed
        if not failed:
            try:
                return compiled(*args, **kwargs)
            except TorchDynamoException as error:
                failed = True
                first = str(error).strip().splitlines()[0]
                warnings.warn(f"{function.__name__} could not be compiled, and runs as it is: {first}", stacklevel=2)
        return function(*args, **kwargs)

    return run
