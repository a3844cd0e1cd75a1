"""The posterior of all data seen, measured afresh at the weights as they are from what stands for the past.

    precision = delta + h,    h = sum_i w_i diag(J_i^T Lambda_i J_i),    Lambda_i = diag(p_i) - p_i p_i^T

over inputs i that stand for w_i past examples each: those of the memory for older experiences (``bayesdual.memory.
stand_ins``), and real examples of the one just learned. The diagonal h is drawn (``ggn.py``) for all weights; of the
last layer, f = W phi, the whole is known, where targets are classes:

    H = delta I + sum_i w_i Lambda_i (x) phi_i phi_i^T

Curvature that was measured when an experience ended would be stale: with two classes learned of ten it is a
twentieth of what the same examples have at the end.

Source: Daxberger et al., "Laplace redux", NeurIPS 2021 (diagonal and last-layer Laplace approximations); here of a
past whose examples are gone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.posterior.checks import refuse_train_mode
from bayesdual.posterior.gaussian import Posterior
from bayesdual.posterior.ggn import draw_pairs, squared_gradients
from bayesdual.posterior.last_layer import LastLayerPosterior, watching_last_linear
from bayesdual.posterior.one_task import OneTask
from bayesdual.posterior.stand_ins import StandIns
from bayesdual.stream import Predict

PRIOR_PRECISION = 8.0  # delta
PAIRS = 1000  # of an example and a label, over which the diagonal is a sum
BATCH = 200  # more do not fit a processor's cache


@torch.no_grad()
def posterior_of_past(
    module: nn.Module,
    predict: Predict,
    past: StandIns,
    generator: torch.Generator,
    pairs: int = PAIRS,
    prior_precision: float = PRIOR_PRECISION,
    likelihood: Likelihood = CATEGORICAL,
) -> Posterior | None:
    """The posterior given all examples that ``past`` stands for, around the weights of the module.

    Args:
        module: The network, in eval mode.
        predict: Its logits.
        past: Inputs that stand for the examples.
        generator: Source of randomness, on the CPU.
        pairs: Number of backward passes; each task label gets its share.
        prior_precision: delta, that of the weights before any data.
        likelihood: Of the targets: its curvature stands in place of Lambda.

    Returns:
        Its precision has entries for the parameters that require a gradient and are used; None where logits of an
        example depend on others of its batch, as with batch norm without running statistics, or on no parameter.
    """
    if not any(p.requires_grad for p in module.parameters()):
        return None
    try:
        refuse_train_mode(module)
    except ValueError:
        return None
    curvature: dict[str, Tensor] = {}
    last: list[LastLayerPosterior | None] = []
    total = past.weights.sum()
    for task in past.tasks.unique():
        some = past[past.tasks == task]
        model = OneTask(module, predict, task)
        logits, layer = _forward(module, model, some, prior_precision)
        share = -(-pairs * float(some.weights.sum() / total) // 1)
        rows, directions = draw_pairs(logits, some.weights, int(share), generator, likelihood)
        squares = squared_gradients(model, some.inputs[rows], directions)
        for name, value in squares.items():
            name = name.removeprefix("model.")
            curvature[name] = curvature[name] + value if name in curvature else value
        last.append(layer if likelihood.is_softmax else None)
    mean = {name: p.detach().clone() for name, p in module.named_parameters()}
    return Posterior(mean, curvature, prior_precision, LastLayerPosterior.joined(last))


def _forward(
    module: nn.Module, model: OneTask, some: StandIns, prior_precision: float
) -> tuple[Tensor, LastLayerPosterior | None]:
    """Logits, shape (N, C), and the posterior of the layer that they come from, if that is a linear one."""
    logits, features = [], []
    with watching_last_linear(module) as last:
        for part in some.inputs.split(BATCH):
            logits.append(model(part).float())
            if last.features is not None and last.gives(logits[-1]):
                features.append(last.features.float())
    f = torch.cat(logits)
    if len(features) < len(logits) or last.layer is None or last.name is None:
        return f, None
    phi = torch.cat(features)
    phi = phi if last.layer.bias is None else F.pad(phi, (0, 1), value=1.0)
    return f, LastLayerPosterior(last.name, phi, f.softmax(1), some.weights, prior_precision)
