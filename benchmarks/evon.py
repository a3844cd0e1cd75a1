"""EVON against IVON: the same step in the eigenbasis of Shampoo's factors, tuned alike.

    python benchmarks/evon.py [--problems NAME ...] [--seeds 0 1 2]

For a weight matrix with mean M, gradient G at a sample, and Q_L, Q_R the eigenvectors of L and R,

    L <- b L + (1 - b) G G^T,    R <- b R + (1 - b) G^T G,      renewed every 10 steps by Q <- qr(L Q)
    sample     theta = M + Q_L (eps / sqrt(N (h + d))) Q_R^T,   eps standard normal
    G' = Q_L^T G Q_R,   hhat = N (h + d) e G'                   e the noise, in the basis
    u <- b1 u + (1 - b1) G,                                     in the coordinates of M
    h <- h + (1 - b2) (hhat - h) + 1/2 (1 - b2)^2 (hhat - h)^2 / (h + d)
    M <- M - lr Q_L [Q_L^T (u / (1 - b1^t) + d M) Q_R / (h + d)] Q_R^T

Vectors have Q = 1, which is IVON; kernels count as matrices (out, in x height x width). With no bases at all it is IVON
as this package has it, but for the noise. Source: Minut et al., arXiv 2606.23357, 2026 (from the equations alone).

Learning rate and b2 of both are chosen by the NLL on validation data of the problems of ``ivon_suggest.py``, seed 3;
then test data, at the mean and averaged over 16 samples.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from ivon_suggest import loss_of
from suggest_problems import PROBLEMS
from torch import Tensor
from torch.optim import Optimizer

from bayesdual.measures import StreamMetric

Settings = dict[str, Any]
RATES, BETAS, HESSIANS = (0.3, 1.0, 3.0), (0.99, 0.999), (1.0,)
TUNING_SEED, SAMPLES = 3, 16


class EVON(Optimizer):
    """The equations above; ``lr`` is rescaled by hess_init + weight_decay, as IVON's.

    Args:
        params: Parameters.
        lr: Step size relative to the first curvature.
        ess: N.
        hess_init: h at the beginning.
        betas: b1 and b2.
        weight_decay: d.
        basis: Whether there are bases; without, this is IVON.
        every: Steps from one QR to the next.
        beta_factors: b.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, *, ess: float, hess_init: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.9999), weight_decay: float = 1e-4, basis: bool = True, every: int = 10,
        beta_factors: float = 0.95,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "initial_lr": lr})
        self.ess, self.hess_init, self.betas, self.decay = ess, hess_init, betas, weight_decay
        self.basis, self.every, self.beta_factors = basis, every, beta_factors
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Draws a sample, calls the closure there, and steps."""
        noise = self.perturb()
        with torch.enable_grad():
            value = closure()
        self.steps += 1
        b1, b2 = self.betas
        for group in self.param_groups:
            for p in group["params"]:
                state, e = self.state[p], noise[p]
                p.copy_(state["mean"])
                g = as_matrix(p.grad)
                h, d = state["hess"], self.decay
                change = (1 - b2) * (self.ess * (h + d) * e * turned(g, state) - h)
                precision = h + d
                h.add_(change + 0.5 * change.square() / precision)
                state["momentum"].lerp_(g, 1 - b1)
                u = state["momentum"] / (1 - b1**self.steps) + d * as_matrix(p)
                moved = turned_back(turned(u, state) / (h + d), state).view_as(p)
                p.sub_(moved, alpha=group["lr"] * (self.hess_init + d))
                if self.basis and p.dim() > 1:
                    self._renew(state, g)
        return value

    @torch.no_grad()
    def perturb(self) -> dict[Tensor, Tensor]:
        """Puts a sample into the parameters; the noise of each, in the basis."""
        noise = {}
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["hess"] = torch.full_like(as_matrix(p), self.hess_init)
                    state["momentum"] = torch.zeros_like(as_matrix(p))
                state["mean"] = p.clone()
                noise[p] = torch.randn_like(state["hess"]) / (self.ess * (state["hess"] + self.decay)).sqrt()
                p.add_(turned_back(noise[p], state).view_as(p))
        return noise

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the mean back."""
        for p, state in self.state.items():
            p.copy_(state["mean"])

    def _renew(self, state: dict[str, Any], g: Tensor) -> None:
        for name, product in (("L", g @ g.T), ("R", g.T @ g)):
            if name not in state:
                state[name], state["Q" + name] = product, torch.linalg.eigh(product).eigenvectors
                continue
            state[name].lerp_(product, 1 - self.beta_factors)
            if self.steps % self.every == 0:
                state["Q" + name] = torch.linalg.qr(state[name] @ state["Q" + name]).Q


def as_matrix(p: Tensor) -> Tensor:
    return p.flatten(1) if p.dim() > 1 else p


def turned(g: Tensor, state: dict[str, Any]) -> Tensor:
    return state["QL"].T @ g @ state["QR"] if "QL" in state else g


def turned_back(g: Tensor, state: dict[str, Any]) -> Tensor:
    return state["QL"] @ g @ state["QR"].T if "QL" in state else g


def run(problem: str, settings: Settings, seed: int, tuning: bool) -> dict[str, float]:
    """Trains once, and evaluates at the mean and over samples; on validation data when tuning."""
    setting = PROBLEMS[problem]
    data = setting.data()
    x, y = data.train
    torch.manual_seed(seed)
    network = setting.network()
    made = EVON(network.parameters(), ess=len(x), **settings)
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(made, setting.epochs * math.ceil(len(x) / setting.batch))
    for _ in range(setting.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(setting.batch):

            def closure(rows: Tensor = rows) -> Tensor:
                made.zero_grad()
                loss = loss_of(network, (x[rows], y[rows]))
                loss.backward()
                return loss

            if not math.isfinite(float(made.step(closure))):
                return {"accuracy": 0.0, "nll": math.inf, "seconds": 0.0}
            scheduler.step()
    seconds = time.perf_counter() - start
    test_x, test_y = data.validation if tuning else data.test

    @torch.no_grad()
    def probabilities() -> Tensor:
        return torch.cat([network.eval()(part) for part in test_x.split(1000)]).softmax(1)

    p = probabilities()
    found = {"accuracy": 100 * float((p.argmax(1) == test_y).float().mean()), "seconds": seconds}
    found["nll"] = float(F.nll_loss(p.clamp_min(1e-30).log(), test_y))
    if not tuning:
        total = torch.zeros_like(p)
        for _ in range(SAMPLES):
            made.perturb()
            total += probabilities() / SAMPLES
            made.restore()
        metric = StreamMetric(1)
        metric.update(total, test_y, 0)
        result = metric.compute()
        found |= {"sampled": 100 * result["accuracy"][0], "sampled_nll": result["nll"], "sampled_ece": result["ece"]}
    return found if math.isfinite(found["nll"]) else {"accuracy": 0.0, "nll": math.inf, "seconds": seconds}


def main(words: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=[*PROBLEMS][:2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    for problem in args.problems:
        print(problem)
        for basis in (False, True):
            grid: list[Settings] = [
                {"lr": lr, "betas": (0.9, b2), "hess_init": h, "basis": basis}
                for lr, b2, h in itertools.product(RATES, BETAS, HESSIANS)
            ]
            tuned = [run(problem, settings, TUNING_SEED, True) for settings in grid]
            best = grid[min(range(len(grid)), key=lambda i: tuned[i]["nll"])]
            got = [run(problem, best, seed, False) for seed in args.seeds]
            means = {key: statistics.mean(r[key] for r in got) for key in got[0]}
            each = ", ".join(f"{r['accuracy']:.2f}" for r in got)
            print(
                f"  {'EVON' if basis else 'IVON'}  {means['accuracy']:.2f} ({each})  NLL {means['nll']:.3f}  samples "
                f"{means['sampled']:.2f}, NLL {means['sampled_nll']:.3f}, ECE {means['sampled_ece']:.3f}  "
                f"{means['seconds']:.0f} s  lr {best['lr']}, beta2 {best['betas'][1]}, hess_init {best['hess_init']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
