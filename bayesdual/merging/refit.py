"""The last layer fitted again: to the minimum over (W, b) of

    mean of CE(y, softmax(W phi + b)) + pull / 2 (|W - W_0|^2 + |b - b_0|^2)

over the examples of a memory, with features phi of the layers below, which stay. What experts of disjoint classes lack
is how their classes compare: no curvature knows of it, but a few examples of each do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.posterior import watching_last_linear

STEPS = 50  # of L-BFGS, which has converged long before on a layer


def refit_last_layer(module: nn.Module, x: Tensor, y: Tensor, pull: float = 0.03) -> None:
    """Fits the linear layer that gives the logits again, in place.

    Args:
        module: The network, in eval mode.
        x: Inputs of the memory, as the network takes them, shape (N, ...).
        y: Their labels, shape (N,).
        pull: How strongly the layer is held where it was, above 0.

    Raises:
        ValueError: ``pull`` is not positive, there is no example, or the logits are not what a linear layer gives.
    """
    if not pull > 0 or len(y) == 0:
        raise ValueError(f"pull is {pull} and there are {len(y)} examples: give a positive number, and at least one.")
    with torch.no_grad(), watching_last_linear(module) as last:
        logits = module(x)
    if last.layer is None or last.features is None or not last.gives(logits):
        raise ValueError("the logits are not the output of one linear layer, which is what is fitted again.")
    layer, features = last.layer, last.features
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    after = {name: p.clone().requires_grad_() for name, p in before.items()}
    optimizer = torch.optim.LBFGS(after.values(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        moved = sum(((p - before[name]).square().sum() for name, p in after.items()), torch.zeros((), device=x.device))
        value = F.cross_entropy(torch.func.functional_call(layer, after, (features,)), y) + pull / 2 * moved
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    layer.load_state_dict({name: p.detach() for name, p in after.items()})
