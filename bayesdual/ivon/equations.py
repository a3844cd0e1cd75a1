"""IVON's lines: Shen et al., "Variational Learning is Effective for Large Deep Networks", ICML 2024, algorithm 1.

The posterior is N(m, diag sigma^2) with sigma^2 = 1 / (N (h + d)): m is the mean, h the Hessian of the loss of one
example, N the effective sample size (ess), d the weight decay. A step draws eps ~ N(0, sigma^2), once or several times;
with g the gradient at theta = m + eps, and means over these samples,

    product   e = mean of eps g             "price", by Stein's identity
              e = mean of g^2 / (h + d)     "gradsq", squared gradients;       in both, hhat = N (h + d) e
    momentum  u <- b1 u + (1 - b1) (mean of g)
    Hessian   h <- h + (h + d) (q + q^2 / 2),   q = (1 - b2) (hhat - h) / (h + d)
    mean      m <- m - a clip((u / (1 - b1^t) + d m) / (h + d), +-xi),   a = lr (h0 + d)  or  lr

The Hessian line is the paper's  b2 h + (1-b2) hhat + (1-b2)^2 (h-hhat)^2 / (2 (h+d))  written as one increment;
since 1 + q + q^2/2 >= 1/2, the new h + d is at least half the old: the posterior stays positive.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdual.ivon import foreach
from bayesdual.ivon.blocks import Tensors


def perturb_(m: Tensors, normal: Tensors, deviation: Tensors, ess: float) -> None:
    """Turns m into theta = m + eps; ``normal`` is standard normal, ``deviation`` (h + d)^(-1/2)."""
    foreach.addcmul_(m, normal, deviation, value=ess**-0.5)


def update_state_(
    h: Tensor, u: Tensor, g: Tensor, e: Tensor, precision: Tensor, *, betas: tuple[float, float], ess: float, d: float
) -> None:
    """Momentum and Hessian, of flat tensors; ``e`` is used up, and ``precision`` is given the new h + d."""
    b1, b2 = betas
    rate = (1 - b2) * ess
    u.lerp_(g, 1 - b1)
    torch.add(h, d, out=precision)
    e.addcdiv_(h, precision, value=-1 / ess)  # q / rate
    e.addcmul_(e, e, value=0.5 * rate)  # (q + q^2 / 2) / rate
    h.addcmul_(precision, e, value=rate)
    precision.addcmul_(precision, e, value=rate)


def update_mean_(
    m: Tensors, u: Tensors, precision: Tensors, *, a: float, debias: list[float], d: float, xi: float
) -> None:
    """The mean, of lists of tensors; ``precision`` is h + d, ``debias`` 1 - b1^t of each tensor."""
    if math.isinf(xi):
        if d:
            foreach.addcdiv_(m, m, precision, value=-a * d)
        foreach.addcdiv_(m, u, precision, [-a / x for x in debias])
    else:
        direction = foreach.div(u, debias)
        foreach.add_(direction, m, alpha=d)
        foreach.div_(direction, precision)
        foreach.clamp_min_(direction, -xi)
        foreach.clamp_max_(direction, xi)
        foreach.add_(m, direction, alpha=-a)
