"""Function variance: time and peak memory of `function_variance` against vmap(jacrev).

For each network the table gives the median time of a forward, of `function_variance` and of vmap(jacrev),
taken in turn in one process, their ratios, the largest relative difference of the results, and the rise of the
peak memory of each, measured in a process of its own. ResNet-18 runs `function_variance` only: its Jacobian
does not fit.

    python benchmarks/function_variance.py [--repeats 20] [--threads 1] [--device cpu]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torchvision.models import resnet18

from bayesdual.posterior import function_variance

MIB = 2**20


def mlp() -> tuple[nn.Module, Tensor]:
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers), torch.randn(64, 784)


def lenet() -> tuple[nn.Module, Tensor]:
    convolutions = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    convolutions += [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    head = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*convolutions, *head), torch.randn(64, 1, 28, 28)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1000, 64)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2)
        self.head = nn.Linear(64, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.tokens(tokens)).mean(1))


def transformer() -> tuple[nn.Module, Tensor]:
    return Transformer(), torch.randint(1000, (64, 16))


def resnet() -> tuple[nn.Module, Tensor]:
    """ResNet-18 as used for 32 x 32 images: a 3 x 3 stem and no first pooling."""
    model = resnet18(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model, torch.randn(128, 3, 32, 32)


NETWORKS = {"MLP": mlp, "LeNet": lenet, "transformer": transformer, "ResNet-18": resnet}


def build(network: str, device: str) -> tuple[nn.Module, Tensor, SimpleNamespace]:
    torch.manual_seed(0)
    model, inputs = NETWORKS[network]()
    model = model.to(device).eval()
    variance = {name: torch.rand_like(p) * 1e-3 for name, p in model.named_parameters()}
    return model, inputs.to(device), SimpleNamespace(variance=variance)


def by_jacobian(model: nn.Module, inputs: Tensor, posterior: SimpleNamespace, chunk: int | None = None) -> Tensor:
    """What one writes without this package: all of J by vmap(jacrev), then the sum over parameters."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def logits(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        return functional_call(model, parameters, (example[None],))[0]

    jacobian = vmap(jacrev(logits), (None, 0), chunk_size=chunk)(parameters, inputs)
    terms = ((j.flatten(2).square() @ posterior.variance[name].flatten()) for name, j in jacobian.items())
    return sum(terms)


def by_jacobian_of_eight(model: nn.Module, inputs: Tensor, posterior: SimpleNamespace) -> Tensor:
    return by_jacobian(model, inputs, posterior, chunk=8)


def forward(model: nn.Module, inputs: Tensor, posterior: SimpleNamespace) -> Tensor:
    with torch.no_grad():
        return model(inputs)


SIDES: dict[str, Callable] = {
    "forward": forward,
    "function_variance": function_variance,
    "vmap(jacrev)": by_jacobian,
    "vmap(jacrev), 8 at a time": by_jacobian_of_eight,
}


def seconds(side: Callable, arguments: tuple) -> float:
    start = time.perf_counter()
    result = side(*arguments)
    if result.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak(network: str, side: str, device: str, threads: int, answer) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    arguments = build(network, device)
    forward(arguments[0], arguments[1][:1], arguments[2])  # libraries load before the measure
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        elapsed = seconds(SIDES[side], arguments)
        answer.put((torch.cuda.max_memory_allocated() - before, elapsed))
        return
    before = _highest_resident()
    elapsed = seconds(SIDES[side], arguments)
    answer.put((_highest_resident() - before, elapsed))


def _highest_resident() -> int:
    """Peak resident bytes of this process; getrusage would inherit the peak of the parent."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def peak(network: str, side: str, device: str, threads: int) -> tuple[float, float]:
    """Rise of the peak memory in MiB, and seconds, of one call in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_peak, args=(network, side, device, threads, answer))
    process.start()
    rise, elapsed = answer.get()
    process.join()
    return rise / MIB, elapsed


def compare(network: str, device: str, threads: int, repeats: int) -> None:
    arguments = build(network, device)
    for side in SIDES.values():
        side(*arguments)
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    for repeat in range(repeats):  # in turn, so that a busy machine is as busy for each
        print(f"\r{network}: {repeat + 1} of {repeats}", end="", file=sys.stderr, flush=True)
        for name, side in SIDES.items():
            inner = 1 if "jacrev" in name else 10
            times[name] += [seconds(side, arguments) for _ in range(inner)]
    parameters = sum(p.numel() for p in arguments[0].parameters())
    print(file=sys.stderr)
    print(f"{network}, {parameters:,} parameters, batch {len(arguments[1])}, 10 classes")
    expected = by_jacobian(*arguments)
    error = ((function_variance(*arguments) - expected).abs() / expected).max().item()
    print(f"  {'':28s}{'median ms':>10s}{'forwards':>10s}{'x ours':>8s}", end="")
    print(f"{'fastest ms':>12s}{'forwards':>10s}{'x ours':>8s}{'peak MiB':>10s}")
    for name, taken in times.items():
        print(f"  {name:28s}", end="")
        for average, width in ((statistics.median, 10), (min, 12)):  # the fastest is what an idle machine does
            one, ours = average(times["forward"]), average(times["function_variance"])
            print(f"{average(taken) * 1e3:{width}.2f}{average(taken) / one:10.1f}{average(taken) / ours:8.2f}", end="")
        print(f"{peak(network, name, device, threads)[0]:10.0f}", flush=True)
    print(f"  largest relative difference {error:.1e} in single precision\n")


def large(network: str, device: str, threads: int) -> None:
    model, inputs, _ = build(network, device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{network}, {parameters:,} parameters, batch {len(inputs)}, 10 classes", flush=True)
    _, once = peak(network, "forward", device, threads)
    memory, elapsed = peak(network, "function_variance", device, threads)
    jacobian = len(inputs) * 10 * parameters * 4 / 2**30
    print(
        f"  function_variance: {elapsed:.1f} s ({elapsed / once:.1f} forwards), peak {memory:.0f} MiB; "
        f"the Jacobian alone would take {jacobian:.0f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="rounds of the timing")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where the networks run")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "There is a performance drop")
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads\n")
    for network in ("MLP", "LeNet", "transformer"):
        compare(network, options.device, options.threads, options.repeats)
    large("ResNet-18", options.device, options.threads)


if __name__ == "__main__":
    main()
