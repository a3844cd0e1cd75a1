"""A Gaussian posterior over the weights of a network, with diagonal precision, by parameter name.

    p(theta) = N(mean, diag(1 / precision)),      prediction  p(y|x) ~ 1/S sum_s softmax f(x; theta_s)

Parameters without a precision (frozen ones) are known exactly: they have a mean, and variance 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from bayesdual.files import write_whole

FORMAT = "bayesdual-posterior-1"


@runtime_checkable
class HasPrecision(Protocol):
    """An optimizer that learns a posterior, as IVON does: it knows the precision of the parameters it trains."""

    def precision(self) -> Mapping[Tensor, Tensor]: ...


class Posterior:
    """Mean and precision of each parameter.

    Args:
        mean: Means by parameter name.
        precision: Precisions (inverse variances) by parameter name, of the shapes of ``mean``, positive; a name
            that is missing is a parameter known exactly.

    Raises:
        ValueError: A precision has no mean, another shape, or is not positive.
    """

    def __init__(self, mean: Mapping[str, Tensor], precision: Mapping[str, Tensor]) -> None:
        for name, value in precision.items():
            if name not in mean or mean[name].shape != value.shape:
                raise ValueError(f"the precision of {name!r} has no mean of its shape {tuple(value.shape)}.")
            if not bool((value > 0).all()):
                raise ValueError(f"the precision of {name!r} is not positive everywhere.")
        self.mean = dict(mean)
        self.precision = dict(precision)

    @classmethod
    def of(cls, module: nn.Module, optimizer: object) -> Posterior | None:
        """The posterior that an optimizer has learned (see :meth:`from_optimizer`); None if it learns none, as Adam."""
        return cls.from_optimizer(module, optimizer) if isinstance(optimizer, HasPrecision) else None

    @classmethod
    def from_optimizer(cls, module: nn.Module, optimizer: HasPrecision) -> Posterior:
        """The posterior that an optimizer has learned; IVON's precision is ess (hess + weight_decay).

        Args:
            module: The network, at the mean.
            optimizer: IVON over (some of) its parameters. Parameters that it does not train are known exactly;
                those it has not stepped yet have the precision of its start.

        Returns:
            A copy, on the device of the parameters.

        Raises:
            RuntimeError: The parameters hold a sample.
        """
        names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
        precision = {names[p]: value for p, value in optimizer.precision().items() if p in names}
        return cls({name: p.detach().clone() for p, name in names.items()}, precision)

    @classmethod
    def from_checkpoint(cls, path: str | Path, module: nn.Module, name: str = "network") -> Posterior:
        """The posterior in a Lightning checkpoint, such as a ``Learner``'s.

        Args:
            path: The checkpoint; nothing in it is executed.
            module: A network like that in the checkpoint, all of whose parameters (and no others) IVON was given.
            name: The attribute of the LightningModule that holds it; "" if it is the network.

        Raises:
            ValueError: The checkpoint is of another network, or its optimizer is not IVON.
        """
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        prefix = f"{name}." if name else ""
        weights, optimizers = checkpoint["state_dict"], checkpoint.get("optimizer_states") or [{}]
        if "noise" not in optimizers[0]:
            raise ValueError(f"{path} has no posterior: it was not trained with bayesdual's IVON.")
        states, groups = optimizers[0]["state"], optimizers[0]["param_groups"]
        group_of = {i: group for group in groups for i in group["params"]}
        mean, precision = {}, {}
        for i, (n, p) in enumerate(module.named_parameters()):
            value = weights.get(prefix + n)
            hess = states.get(i, {}).get("hess")
            if i not in group_of or any(t is None or t.shape != p.shape for t in (value, p if hess is None else hess)):
                raise ValueError(f"{path} is of another network: it has no {prefix + n} of shape {tuple(p.shape)}.")
            mean[n] = value
            if hess is not None:
                precision[n] = group_of[i]["ess"] * (hess + group_of[i]["weight_decay"])
        if len(group_of) != len(mean):
            raise ValueError(f"{path} is of another network: IVON had {len(group_of)} parameters, not {len(mean)}.")
        return cls(mean, precision)

    @property
    def variance(self) -> dict[str, Tensor]:
        """Variances by parameter name; parameters known exactly are left out."""
        return {name: value.reciprocal() for name, value in self.precision.items()}

    def sample(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draws all parameters, by name.

        Args:
            generator: Source of randomness, on the device of the means.
        """
        draw = {}
        for name, mean in self.mean.items():
            draw[name] = mean
            if name in self.precision:
                noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
                draw[name] = mean + noise * self.precision[name].rsqrt()
        return draw

    @torch.no_grad()
    def predict(
        self, module: nn.Module, x: Tensor, samples: int = 32, generator: torch.Generator | None = None
    ) -> Tensor:
        """Class probabilities averaged over samples of the weights; needs the memory of one sample.

        Args:
            module: The network whose parameters these are, in eval mode; it is not changed.
            x: Inputs, shape (B, ...).
            samples: Number of samples S.
            generator: Source of randomness, on the device of the means.

        Returns:
            Probabilities, shape (B, C).

        Raises:
            ValueError: ``samples`` is less than 1.
        """
        if samples < 1:
            raise ValueError(f"samples is {samples}: give at least 1.")
        total = functional_call(module, self.sample(generator), (x,)).softmax(-1)
        for _ in range(samples - 1):
            total += functional_call(module, self.sample(generator), (x,)).softmax(-1)
        return total / samples

    def save(self, path: str | Path) -> None:
        """Writes mean and precision to one safetensors file."""
        tensors = {f"{kind}/{n}": v for kind in ("mean", "precision") for n, v in getattr(self, kind).items()}
        tensors = {name: v.detach().cpu().contiguous() for name, v in tensors.items()}
        write_whole(path, lambda temporary: save_file(tensors, temporary, {"format": FORMAT}))

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """Reads what :meth:`save` wrote; executes nothing from it.

        Raises:
            ValueError: The file is not a posterior.
        """
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a posterior file, or is damaged ({error}).") from None
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} is not a posterior file: its header does not say {FORMAT}.")
        parts: dict[str, dict[str, Tensor]] = {"mean": {}, "precision": {}}
        for name, value in tensors.items():
            kind, _, parameter = name.partition("/")
            if kind not in parts:
                raise ValueError(f"{path} is not a posterior file: it has a tensor {name!r}.")
            parts[kind][parameter] = value
        return cls(parts["mean"], parts["precision"])
