"""Which noise comes next: what the processes of a run agree on, and what a checkpoint keeps of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bayesdual.ivon.distributed import rank_and_world_size, same_on_all


@dataclass
class Keys:
    """The keys of the samples' noise: all that has to be saved of it.

    Attributes:
        seed: Seed of the noise; processes use that of rank 0.
        draws: Number of samples drawn for training,
        predictions: and for prediction.
    """

    seed: int
    draws: int = 0
    predictions: int = 0

    def __post_init__(self) -> None:
        self.seed_is_shared = False

    def training(self, independent: bool, device: torch.device) -> str:
        """The key of the next sample for training: that of all processes, or if ``independent``, of this one."""
        rank, world_size = rank_and_world_size()
        if world_size > 1 and not self.seed_is_shared:
            self.seed = same_on_all(self.seed, device)
        self.seed_is_shared = True
        draw = self.draws + (rank if independent else 0)
        self.draws += world_size if independent else 1
        return f"{self.seed} training {draw}"

    def prediction(self) -> str:
        """The key of the next sample for prediction."""
        self.predictions += 1
        return f"{self.seed} prediction {self.predictions - 1}"
