"""Why IVON-LoRA learned new intents badly over a stream: each suspect switched off, on validation texts.

    python benchmarks/lora_steps.py --encoder FOLDER [--seeds 3 ...]

The stream of ``benchmarks/lora.py``, all 15 experiences with 6 kB, tested on the 4 validation texts of each intent:
accuracy at the end, and of each experience when just learned. Test texts are not looked at.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import Any

import lora
import torch
from torch import nn

from bayesdual.algorithm import BayesDual
from bayesdual.ivon import IVON, IVONByRule
from bayesdual.ivon.by_matrix import HESS_INIT, WEIGHT_DECAY
from bayesdual.ivon.rule import SHARE
from bayesdual.kprior import KroneckerPrior
from bayesdual.lora import IVONForLoRA

Optimizer = Callable[[nn.Module, int, int], torch.optim.Optimizer]


class HalfNew(lora.Unmeasured):
    """New and past examples count the same, however many there were."""

    def _share(self) -> float:
        return 0.5


def ours(memory_bytes: int, kind: type[BayesDual] = lora.Unmeasured, **others: Any) -> BayesDual:
    settings = {"weight_prior": KroneckerPrior(examples=200), **others}
    return kind(memory_bytes=memory_bytes, replay_batch_size=lora.BATCH, condensation=None, **settings)


def adamw(network: nn.Module, examples: int, steps: int) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=1e-2)


def by_matrix(network: nn.Module, examples: int, steps: int) -> IVON:
    return IVONForLoRA(5e-3).make(network.parameters(), examples, steps)


def by_rule(network: nn.Module, examples: int, steps: int) -> IVON:
    return IVONByRule().make(network.parameters(), examples, steps)


def by_weight(bound: float, step: float = 5e-3) -> Optimizer:
    """Steps clipped in each weight, as IVON-LoRA has them, where gradients are longer than ``bound``."""

    def make(network: nn.Module, examples: int, steps: int) -> IVON:
        learned, radius = sum(p.numel() for p in network.parameters()), bound / HESS_INIT
        return IVON(
            network.parameters(), lr=step / radius, ess=learned / (SHARE * HESS_INIT), hess_init=HESS_INIT,
            clip_radius=radius, rescale_lr=False, betas=(0.9, 0.9999), weight_decay=WEIGHT_DECAY,
        )  # fmt: skip

    return make


WAYS: dict[str, tuple[Callable[[int], BayesDual], Optimizer]] = {
    "ours, AdamW": (ours, adamw),
    "ours, steps clipped by weight": (ours, by_weight(1e-5)),
    "  replay alone": (lora.replay, by_weight(1e-5)),
    "  without the K-prior": (lambda n: ours(n, weight_prior=None), by_weight(1e-5)),
    "  labels alone": (lambda n: ours(n, label_share=1.0), by_weight(1e-5)),
    "  half of the loss is new": (lambda n: ours(n, HalfNew), by_weight(1e-5)),
    "  only gradients above 0.01 clipped": (ours, by_weight(1e-2, 1e-2)),
    "ours, rule of streams": (ours, by_rule),
    "ours, steps of one length by matrix": (ours, by_matrix),
    "replay, steps of one length by matrix": (lora.replay, by_matrix),
    "replay, AdamW": (lora.replay, adamw),
}


def result(name: str, seed: int) -> dict[str, Any]:
    algorithm, make = WAYS[name]

    class Method(lora.Method):
        def optimizer(self, network: nn.Module, rate: float, examples: int, steps: int) -> torch.optim.Optimizer:
            return make(network, examples, steps)

    lora.METHODS[name] = Method(algorithm, ivon=make is not adamw)
    return lora.run(name, 0.0, seed, tuning=True)


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="folder of a BERT of 6 layers and its tokenizer")
    parser.add_argument("--seeds", nargs="+", type=int, default=[3])
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    os.environ[lora.ENCODER] = args.encoder
    lora.TUNED_ON, lora.TUNING_BYTES = lora.EXPERIENCES, lora.BYTES
    print(f"{'':38s} {'seed':>4s} {'at the end':>10s} {'just learned':>12s} {'NLL':>6s}")
    for name in WAYS:
        for seed in args.seeds:
            found = result(name, seed)
            accuracy, nll = found["mean"]["accuracy"], found["mean"]["nll"]
            print(f"{name:38s} {seed:4d} {accuracy:10.3f} {found['just_learned']:12.3f} {nll:6.3f}", flush=True)


if __name__ == "__main__":
    main()
