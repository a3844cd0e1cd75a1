"""The posterior of the past as a prior of the weights, with a Kronecker-factored precision.

For a linear layer with weights W (bias as its last column), inputs a (with a 1 appended) and logits f, the curvature
of the past loss is approximated by (Martens & Grosse, ICML 2015; Ritter et al., NeurIPS 2018)

    P = G (x) A,   A = mean of a a^T,   G = mean of J^T Lambda_T J,   J = df/d(Wa)
    Lambda_T = diag(p) - p p^T,         p = softmax(f / T)         (of classes; else the likelihood's, at f / T)

both means over all past examples, kept as running averages; a head of another task is not called for an example, which
then adds nothing to its G, and no a to its A. The term added to the loss, per past example, is

    1/2 sum_ij min(c g_i a_j, cap) [U_G^T (W - W_old) U_A]_ij^2

with the leading eigenvectors U and eigenvalues g, a of the factors. T > 1 matters: at T = 1 the curvature along the
logits of classes not seen yet is 0, and the prior would not hold them down where past examples lie. J^T Lambda_T J
is estimated without bias by one backward pass, through p - onehot(k) with k drawn from p.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from bayesdual.likelihoods import CATEGORICAL, Likelihood
from bayesdual.posterior import Posterior
from bayesdual.stream import ExperienceData, Predict
from bayesdual.tensors import corner, grow

OVERSAMPLING = 8  # extra directions of the randomised eigenvectors


class KroneckerPrior:
    """Holds the linear layers of a network where past examples need them.

    Layers of other kinds are not held, nor linear layers that were not called, or were called several times, in a
    forward pass.

    Args:
        strength: Factor c.
        temperature: T.
        cap: Greatest curvature along any direction, which keeps steps stable.
        input_rank: Number of eigenvectors of A.
        output_rank: Number of eigenvectors of G.
        examples: Number of an experience's examples that the factors are estimated from.

    Raises:
        ValueError: An argument is not positive.
    """

    def __init__(
        self,
        strength: float = 3.0,
        temperature: float = 3.0,
        cap: float = 5.0,
        input_rank: int = 64,
        output_rank: int = 16,
        examples: int = 500,
    ) -> None:
        for name, value in locals().copy().items():
            if name != "self" and value <= 0:
                raise ValueError(f"KroneckerPrior's {name} is {value}: give a positive number.")
        self.strength = strength
        self.temperature = temperature
        self.cap = cap
        self.input_rank = input_rank
        self.output_rank = output_rank
        self.examples = examples
        self.likelihood: Likelihood = CATEGORICAL  # until an algorithm gives its own
        self._count = 0  # past examples that the factors are the mean over
        self._factors: dict[str, dict[str, Tensor]] = {}  # A and G, by layer
        self._counts: dict[str, int] = {}  # past examples that had an a, by layer
        self._anchor: dict[str, dict[str, Tensor]] = {}  # eigenvectors, curvature, and W_old in their terms

    def loss(self, module: nn.Module) -> Tensor | None:
        """The term above; None before an experience has been learned.

        Args:
            module: The network.
        """
        if not self._anchor:
            return None
        origin = next(iter(self._anchor.values()))["origin"]
        total = origin.new_zeros(())
        with torch.autocast(origin.device.type, enabled=False):  # what moved is a small difference
            for name, anchor in self._anchor.items():
                layer = cast(nn.Linear, module.get_submodule(name))
                moved = coordinates(layer, anchor["outputs"], anchor["inputs"]) - anchor["origin"]
                total = total + 0.5 * (anchor["curvature"] * moved.square()).sum()
        return total

    def update(
        self,
        module: nn.Module,
        predict: Predict,
        data: ExperienceData,
        posterior: Posterior | None,
        device: torch.device | str,
        generator: torch.Generator,
    ) -> None:
        """Takes in the experience just learned: its curvature into the factors, the weights as the new anchor.

        Args:
            module: The network, in eval mode at the posterior mean.
            predict: Its logits, of inputs and task labels.
            data: The experience's examples.
            posterior: Not used; the curvature is measured at the mean.
            device: Where the network is.
            generator: Source of randomness, on the CPU.
        """
        rows = torch.randperm(len(data.y), generator=generator)[: self.examples]
        x, t = data.inputs(rows).to(device), data.tasks[rows].to(device)
        new = factors(module, predict, x, t, self.temperature, generator, self.likelihood)
        n, old = len(data.y), self._factors
        share = n / (self._count + n)
        for name, pair in new.items():
            self._counts[name] = self._counts.get(name, 0) + n
            for side, weight in (("inputs", n / self._counts[name]), ("outputs", share)):
                before = grow(old[name][side] if name in old else None, pair[side], 0.0)
                pair[side] = before.lerp(pair[side], weight)
        absent = {
            name: pair | {"outputs": pair["outputs"] * (1 - share)} for name, pair in old.items() if name not in new
        }
        self._factors = absent | new
        self._count += n
        self._anchor = {
            name: self._anchored(cast(nn.Linear, module.get_submodule(name)), pair, generator)
            for name, pair in self._factors.items()
        }

    def to(self, device: torch.device | str) -> None:
        """Moves what the prior holds."""
        for part in (self._factors, self._anchor):
            for tensors in part.values():
                tensors.update({k: v.to(device) for k, v in tensors.items()})

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {"count": self._count, "counts": dict(self._counts), "factors": self._factors, "anchor": self._anchor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        self._count, self._factors, self._anchor = state["count"], state["factors"], state["anchor"]
        # Older checkpoints have one count: that of all layers.
        self._counts = dict(state.get("counts", dict.fromkeys(self._factors, self._count)))

    def _anchored(self, layer: nn.Linear, pair: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        values_in, inputs = leading_eigenvectors(pair["inputs"], self.input_rank, generator)
        values_out, outputs = leading_eigenvectors(pair["outputs"], self.output_rank, generator)
        return {
            "inputs": inputs.contiguous(),
            "outputs": outputs.contiguous(),
            "origin": coordinates(layer, outputs, inputs).detach(),
            "curvature": (self.strength * torch.outer(values_out, values_in)).clamp(0, self.cap),
        }


@torch.enable_grad()
def factors(
    module: nn.Module,
    predict: Predict,
    x: Tensor,
    t: Tensor,
    temperature: float,
    generator: torch.Generator,
    likelihood: Likelihood = CATEGORICAL,
) -> dict[str, dict[str, Tensor]]:
    """Kronecker factors of the curvature, by name of the linear layer.

    Args:
        module: The network.
        predict: Its logits, of inputs and task labels.
        x: Inputs, shape (B, ...).
        t: Task labels, shape (B,).
        temperature: T.
        generator: Source of randomness, on the CPU.
        likelihood: Of the targets.

    Returns:
        For each layer ``inputs``, A (D + 1, D + 1), without the 1 if it has no bias, and ``outputs``, G (O, O).
    """
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def watch(name: str) -> Any:
        return lambda layer, inputs, output: calls.setdefault(name, []).append((inputs[0].detach(), output))

    layers = {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear) and m.weight.requires_grad}
    handles = [m.register_forward_hook(watch(name)) for name, m in layers.items()]
    try:
        logits = predict(x, t)
    finally:
        for handle in handles:
            handle.remove()
    once = {n: c[0] for n, c in calls.items() if len(c) == 1 and c[0][0].dim() == 2 and len(c[0][0]) == len(x)}
    if not once:
        return {}
    drawn = likelihood.drawn_factor(logits.detach() / temperature, generator)
    deltas = torch.autograd.grad(logits, [output for _, output in once.values()], drawn, allow_unused=True)
    result = {}
    for (name, (a, _)), delta in zip(once.items(), deltas, strict=True):
        if delta is not None:
            exact = torch.promote_types(delta.dtype, torch.float32)
            a, delta = a.to(exact), delta.to(exact)
            if layers[name].bias is not None:
                a = torch.cat([a, a.new_ones(len(a), 1)], dim=1)
            result[name] = {"inputs": a.T @ a / len(a), "outputs": delta.T @ delta / len(a)}
    return result


def leading_eigenvectors(matrix: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues and eigenvectors of a positive semidefinite matrix, by randomised subspace iteration.

    Halko et al., SIAM Review 2011, algorithm 4.4; exact where ``rank`` is nearly the size.

    Args:
        matrix: Shape (D, D).
        rank: How many, at most D.
        generator: Source of randomness, on the CPU.

    Returns:
        Values (rank,), and vectors (D, rank) as columns, the smallest first.
    """
    size = len(matrix)
    rank = min(rank, size)
    if rank + OVERSAMPLING >= size // 2:
        values, vectors = eigh(matrix)
        return values[-rank:], vectors[:, -rank:]
    start = torch.randn(size, rank + OVERSAMPLING, generator=generator).to(matrix)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(2):
        basis = torch.linalg.qr(matrix @ basis).Q
    values, inner = eigh(basis.T @ matrix @ basis)
    return values[-rank:], basis @ inner[:, -rank:]


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors; in float64 where float32's are NaN, as MKL's are of some with rows of zeros."""
    values, vectors = torch.linalg.eigh(matrix)
    if not torch.isfinite(values).all():
        values, vectors = (part.to(matrix) for part in torch.linalg.eigh(matrix.double()))
    return values, vectors


def coordinates(layer: nn.Linear, outputs: Tensor, inputs: Tensor) -> Tensor:
    """U_G^T W U_A, with the bias of the layer as the last column of W.

    Args:
        layer: A linear layer.
        outputs: U_G, shape (O, g); rows of a head that has grown since, beyond O, are left out.
        inputs: U_A, shape (D + 1, a), or (D, a) without a bias.
    """
    weight = corner(layer.weight, (len(outputs), layer.weight.shape[1])).to(outputs)
    if layer.bias is None:
        return outputs.T @ weight @ inputs
    bias = corner(layer.bias, outputs.shape[:1]).to(outputs)
    return outputs.T @ weight @ inputs[:-1] + torch.outer(outputs.T @ bias, inputs[-1])
