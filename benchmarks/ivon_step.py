"""What a step of IVON costs: drawing a sample, restoring the mean and updating, without forward and backward.

Takes turns between ivon-opt, ours, AdamW, fused AdamW and one ``torch.randn`` of all parameters, and prints the median
milliseconds, their ratios, and how much memory each optimizer adds at its peak, in units of the parameters.

    python benchmarks/ivon_step.py [--rounds 15] [--threads 2] [--device cuda] [--fused]

On a CUDA device memory is not measured, and two floors stand beside the times: how long it takes to move the numbers
that a step must read or write. AdamW's are 7 for each parameter (it reads weight, gradient and two moments, and writes
all but the gradient), IVON's 11 (a sample reads mean and Hessian, and writes itself and the mean that is kept; the
update reads mean, gradient, Hessian and momentum, and writes all but the gradient; noise is made again, not read).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import ivon
import torch
from torch import nn

from bayesdual.ivon import IVON
from bayesdual.models import MLP, ResNet18


class Transformer(nn.Module):
    """Six layers of width 512 and a vocabulary of 12,000."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12_000, 512)
        layer = nn.TransformerEncoderLayer(512, 8, 2048)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "MLP": lambda: MLP(784, (256, 256), 10),
    "ResNet-18": ResNet18,
    "transformer": Transformer,
}
OPTIMIZERS: dict[str, Callable] = {
    "ivon-opt": lambda params: ivon.IVON(params, lr=0.1, ess=50_000),
    "ours": lambda params: IVON(params, lr=0.1, ess=50_000),
    "ours, fused": lambda params: IVON(params, lr=0.1, ess=50_000, fused=True),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=1e-3),
    "fused AdamW": lambda params: torch.optim.AdamW(params, lr=1e-3, fused=True),
}


MOVED = {"AdamW": 7, "IVON": 11}  # numbers for each parameter


def make_step(model: str, optimizer: str, device: str = "cpu") -> Callable[[], None]:
    """Returns a function that samples where there is a sample, and steps; gradients are given."""
    torch.manual_seed(0)
    params = list(MODELS[model]().to(device).parameters())
    opt = OPTIMIZERS[optimizer](params)
    grads = [torch.randn_like(p) * 1e-3 for p in params]

    def step() -> None:
        with opt.sampled_params(train=True) if hasattr(opt, "sampled_params") else nullcontext():
            for p, g in zip(params, grads, strict=True):
                p.grad = g
        opt.step()

    return step


def resident() -> int:
    """Bytes of memory that this process has now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def extra_memory(model: str, optimizer: str, result: multiprocessing.Queue) -> None:
    """Puts how much the process grows at most in three steps, as a multiple of the parameters' size."""
    size = 4 * sum(p.numel() for p in MODELS[model]().parameters())
    step = make_step(model, optimizer)
    before = peak = resident()
    done = False

    def watch() -> None:
        nonlocal peak
        while not done:
            peak = max(peak, resident())
            time.sleep(1e-4)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        step()
    done = True
    watcher.join()
    result.put((peak - before) / size)


def in_its_own_process(model: str, optimizer: str) -> float:
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    process = context.Process(target=extra_memory, args=(model, optimizer, result))
    process.start()
    value = result.get()
    process.join()
    return value


def seconds(step: Callable[[], object], repeats: int, device: str) -> float:
    """How long a step takes, in the mean of some."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often each takes its turn")
    parser.add_argument("--threads", type=int, help="PyTorch's threads; its own choice if not given")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--skip-memory", action="store_true", help="only measure time")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where the parameters are")
    parser.add_argument("--fused", action="store_true", help="measure IVON(fused=True), too, which compiles first")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    for model in args.models:
        numel = sum(p.numel() for p in MODELS[model]().parameters())
        names = [name for name in OPTIMIZERS if args.fused or name != "ours, fused"]
        turns = {name: make_step(model, name, args.device) for name in names}
        turns["torch.randn"] = lambda numel=numel: torch.randn(numel, device=args.device)
        if args.device == "cuda":
            source, target = (torch.zeros(numel, device="cuda") for _ in range(2))
            turns["copy"] = lambda source=source, target=target: target.copy_(source)
        times: dict[str, list[float]] = {name: [] for name in turns}
        repeats = max(1, 2_000_000 // numel)
        for step in turns.values():
            step()  # makes the state
        for _ in range(args.rounds):
            for name, step in turns.items():
                times[name].append(seconds(step, repeats, args.device) * 1e3)
        median = {name: statistics.median(values) for name, values in times.items()}
        del turns, step
        print(f"\n{model}, {numel / 1e6:.2f} M parameters")
        print(f"{'':12s} {'ms a step':>10s} {'/ ours':>8s} {'memory':>8s}")
        for name, value in median.items():
            measured = name in OPTIMIZERS and args.device == "cpu" and not args.skip_memory
            memory = f"{in_its_own_process(model, name):8.1f}" if measured else ""
            print(f"{name:12s} {value:10.2f} {value / median['ours']:8.2f} {memory}", flush=True)
        floor = median["fused AdamW"] + median["torch.randn"]
        print(f"ivon-opt / ours = {median['ivon-opt'] / median['ours']:.1f}", end="; ")
        print(f"ours / (fused AdamW + torch.randn) = {median['ours'] / floor:.2f}", flush=True)
        if args.device == "cuda":  # a copy moves 2 numbers for each parameter
            print(
                ", ".join(f"{name} moves its numbers in {median['copy'] / 2 * n:.3f} ms" for name, n in MOVED.items())
            )


if __name__ == "__main__":
    main()
