"""What a stream of experiences looks like to the learner: labelled tensors, or datasets behind a loader.

An Avalanche benchmark gives experiences with a ``dataset``. Small data is better held as tensors and batched
by indexing: an experience that can give its data that way has a method ``tensors() -> TensorData``, as all of
``bayesdual.scenarios`` do.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TensorData:
    """The examples of one experience, held as tensors.

    Attributes:
        x: Inputs, shape (N, ...), raw: uint8 images are normalised on the device, in the learner.
        y: Labels, shape (N,), int64.
        t: Task labels, shape (N,), int64 (all 0 in a stream without task labels).
        index: Position of each example in the source dataset, shape (N,), int64.
        mean: Per-channel mean of the inputs, on the scale 0..1; empty when ``x`` is used as it is.
        std: Per-channel standard deviation, on the scale 0..1; empty when ``x`` is used as it is.
    """

    x: Tensor
    y: Tensor
    t: Tensor
    index: Tensor
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.y)
