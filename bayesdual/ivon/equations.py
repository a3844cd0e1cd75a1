"""IVON: an optimizer that learns a Gaussian posterior over the weights, at the price of AdamW.

Shen et al., "Variational Learning is Effective for Large Deep Networks", ICML 2024 (algorithm 1).
The posterior is N(m, diag sigma^2) with sigma^2 = 1 / (N (h + d)): m is the mean (what the parameters hold outside a
sample), h the Hessian estimate of the per-example loss, N the effective sample size (ess) and d the weight decay. One
step draws eps ~ N(0, sigma^2) and, with g the gradient at theta = m + eps, does

    product   e = mean of eps * g           "price", by Stein's identity
              e = mean of g^2 / (h + d)     "gradsq", squared gradients;       in both, hhat = N (h + d) e
    momentum  u <- b1 u + (1 - b1) (mean of g)
    Hessian   h <- h + (h + d) (q + q^2 / 2),   q = (1 - b2) (hhat - h) / (h + d)
    mean      m <- m - a clip((u / (1 - b1^t) + d m) / (h + d), +-xi),   a = lr (h0 + d)  or  lr

The Hessian line is the paper's  b2 h + (1-b2) hhat + (1-b2)^2 (h-hhat)^2 / (2 (h+d))  written as one increment;
since 1 + q + q^2/2 >= 1/2, the new h + d is at least half the old: the posterior stays positive.

The gradient is what ``p.grad`` holds when ``step`` is called, so that clipping, unscaling, accumulation and averaging
over processes act on it as they do with any optimizer.

Beside the state, one buffer of the size of the parameters is kept: while they hold a sample it keeps the mean, and
after that eps, until ``step`` turns it into e. A sample can be made again from its key, so nothing else is kept of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdual.ivon.blocks import Tensors


def perturb_(params: Tensors, noise: Tensors, deviation: Tensors, ess: float) -> None:
    """Turns m into theta = m + eps; ``noise`` is standard normal, ``deviation`` (h + d)^(-1/2)."""
    torch._foreach_addcmul_(params, noise, deviation, value=ess**-0.5)


def update_state_(
    hess: Tensor,
    momentum: Tensor,
    grad: Tensor,
    product: Tensor,
    precision: Tensor,
    *,
    betas: tuple[float, float],
    ess: float,
    decay: float,
) -> None:
    """Does the lines of momentum and Hessian at the top of this file.

    Args:
        hess, momentum, grad: h, u, the mean of g.
        product: e; it is used up.
        precision: Is given h + d of the new h.
        betas, ess, decay: b1 and b2, N, d.
    """
    beta1, beta2 = betas
    rate = (1 - beta2) * ess
    momentum.lerp_(grad, 1 - beta1)
    torch.add(hess, decay, out=precision)
    product.addcdiv_(hess, precision, value=-1 / ess)  # q / rate
    product.addcmul_(product, product, value=0.5 * rate)  # (q + q^2 / 2) / rate
    hess.addcmul_(precision, product, value=rate)
    precision.addcmul_(precision, product, value=rate)


def update_mean_(
    mean: Tensors,
    momentum: Tensors,
    precision: Tensors,
    *,
    step_size: float,
    debias: list[float],
    decay: float,
    clip_radius: float,
) -> None:
    """Does the last line at the top of this file.

    Args:
        mean, momentum, precision: m, u, h + d.
        step_size: a.
        debias: 1 - b1^t for each tensor.
        decay, clip_radius: d, xi.
    """
    if math.isinf(clip_radius):
        if decay:
            torch._foreach_addcdiv_(mean, mean, precision, value=-step_size * decay)
        torch._foreach_addcdiv_(mean, momentum, precision, [-step_size / x for x in debias])
    else:
        direction = torch._foreach_div(momentum, debias)
        torch._foreach_add_(direction, mean, alpha=decay)
        torch._foreach_div_(direction, precision)
        torch._foreach_clamp_min_(direction, -clip_radius)
        torch._foreach_clamp_max_(direction, clip_radius)
        torch._foreach_add_(mean, direction, alpha=-step_size)
