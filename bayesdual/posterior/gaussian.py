"""A Gaussian posterior over the weights of a network, with diagonal precision, by parameter name.

    p(theta) = N(mean, diag(1 / precision)),      prediction  p(y|x) ~ 1/S sum_s softmax f(x; theta_s)

Parameters without a precision (frozen ones) are known exactly: they have a mean, and variance 0. Where it is known what
of the precision comes from the data, this, the curvature, is kept apart from the prior's delta: precision = curvature +
delta.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesdual.files import refusing_other_content
from bayesdual.posterior.last_layer import LastLayerPosterior
from bayesdual.rounding import at_least_single, unrounded
from bayesdual.tensor_files import read_tensors, write_tensors
from bayesdual.tensors import whole

FORMAT = "bayesdual-posterior-2"
FORMAT_1 = "bayesdual-posterior-1"  # precisions alone
POSTERIOR_FORMATS = (FORMAT, FORMAT_1)
"""What the header of a posterior's file says, now and before."""
LAST = ("features", "probabilities", "weights")  # tensors of the last layer


UNMARKED = (
    "the data have left no mark on the posterior: all precisions are within twice the prior's, so its predictions say "
    "no more than the prior; learn from more data, or look whether the network has learned at all."
)


@runtime_checkable
class HasPrecision(Protocol):
    """An optimizer that learns a posterior, as IVON does: it knows the precision of the parameters it trains."""

    def precision(self) -> Mapping[Tensor, Tensor]: ...


@runtime_checkable
class HasMeans(Protocol):
    """An optimizer that knows the mean of its parameters better than these, which may hold it rounded to 16 bits."""

    def means(self) -> Mapping[Tensor, Tensor]: ...


class Posterior:
    """Mean and precision of each parameter.

    Args:
        mean: Means by parameter name.
        curvature: What the data add to the precision (the inverse variance), by parameter name, of the shapes of
            ``mean``; a name that is missing is a parameter known exactly.
        prior_precision: delta, the precision before any data; 0 where that is not known, and ``curvature`` is all.
        last_layer: The posterior of the last layer, with all covariances, if there is one.

    Attributes:
        precision: curvature + delta.

    Raises:
        ValueError: A curvature has no mean, another shape, or the precision is not positive.
    """

    def __init__(
        self,
        mean: Mapping[str, Tensor],
        curvature: Mapping[str, Tensor],
        prior_precision: float = 0.0,
        last_layer: LastLayerPosterior | None = None,
    ) -> None:
        precision = {name: value + prior_precision for name, value in curvature.items()}
        for name, value in precision.items():
            if name not in mean or mean[name].shape != value.shape:
                raise ValueError(f"the precision of {name!r} has no mean of its shape {tuple(value.shape)}.")
            if not bool((value > 0).all()):
                raise ValueError(f"the precision of {name!r} is not positive everywhere.")
        self.mean = dict(mean)
        self.curvature = dict(curvature)
        self.precision = precision
        self.prior_precision = prior_precision
        self.last_layer = last_layer

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
            A copy, on the device of the parameters; in float32 of those that have 16 bits.

        Raises:
            RuntimeError: The parameters hold a sample.
        """
        precisions = optimizer.precision()
        exact = optimizer.means() if isinstance(optimizer, HasMeans) else {}
        names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
        precision = {names[p]: whole(value) for p, value in precisions.items() if p in names}
        return cls({name: whole(exact.get(p, p.detach())).clone() for p, name in names.items()}, precision)

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
        return cls.in_checkpoint(torch.load(path, map_location="cpu", weights_only=True), module, name, str(path))

    @classmethod
    def in_checkpoint(
        cls, checkpoint: Mapping[str, Any], module: nn.Module, name: str = "network", path: str = "the checkpoint"
    ) -> Posterior:
        """As :meth:`from_checkpoint`, of a checkpoint that was read already; ``path`` is what an error calls it."""
        prefix = f"{name}." if name else ""
        weights, optimizers = checkpoint["state_dict"], checkpoint.get("optimizer_states") or [{}]
        states, groups = optimizers[0].get("state", {}), optimizers[0].get("param_groups", [{}])
        if "draws" not in optimizers[0].get("noise", groups[0]):
            raise ValueError(f"{path} has no posterior: it was not trained with bayesdual's IVON.")
        group_of = {i: group for group in groups for i in group["params"]}
        mean, precision = {}, {}
        for i, (n, p) in enumerate(module.named_parameters()):
            value = weights.get(prefix + n)
            hess = states.get(i, {}).get("hess")
            if i not in group_of or any(t is None or t.shape != p.shape for t in (value, p if hess is None else hess)):
                raise ValueError(f"{path} is of another network: it has no {prefix + n} of shape {tuple(p.shape)}.")
            mean[n] = unrounded(value, states.get(i, {}).get("mean"))
            if hess is not None:
                precision[n] = group_of[i]["ess"] * (hess + group_of[i]["weight_decay"])
        if len(group_of) != len(mean):
            raise ValueError(f"{path} is of another network: IVON had {len(group_of)} parameters, not {len(mean)}.")
        return cls(mean, precision)

    @property
    def variance(self) -> dict[str, Tensor]:
        """Variances by parameter name; parameters known exactly are left out."""
        return {name: value.reciprocal() for name, value in self.precision.items()}

    @property
    def log_determinant(self) -> float:
        """log |Sigma^-1|, over the parameters that are uncertain."""
        return sum(float(value.double().log().sum()) for value in self.precision.values())

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
        types = {name: p.dtype for name, p in module.named_parameters()}
        total: Tensor | None = None
        for _ in range(samples):
            draw = {name: value.to(types.get(name, value.dtype)) for name, value in self.sample(generator).items()}
            p = functional_call(module, draw, (x,)).softmax(-1)
            p = p.to(at_least_single(p.dtype))
            total = p if total is None else total.add_(p)
        assert total is not None
        return total / samples

    # -- what it has learned

    def marked(self) -> dict[str, float]:
        """Share of the weights on which the data have left a mark, by parameter: the precision is over twice delta."""
        return {n: float((h > self.prior_precision).float().mean()) for n, h in self.curvature.items() if h.numel()}

    @property
    def knows_data(self) -> bool:
        """Whether the data have left a mark on any weight; True where the prior is not known."""
        return any(self.marked().values())

    def summary(self) -> str:
        """A line a parameter: shape, standard deviation, and the share of weights that the data have left a mark on.

        A mark is a precision more than twice the prior's; where that is not known, there is no share.
        """
        known = self.prior_precision > 0
        lines: list[tuple[str, ...]] = [("parameter", "shape", "median std", "min", "max", "marked" if known else "")]
        shares = self.marked()
        for name in shares:
            std = self.precision[name].flatten().float().rsqrt()
            spread = [f"{float(value):.2e}" for value in (std.median(), std.min(), std.max())]
            lines.append((name, " x ".join(map(str, self.mean[name].shape)), *spread, f"{shares[name]:.0%}" * known))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join(table if self.knows_data else [*table, UNMARKED])

    # -- files and checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        last = self.last_layer
        return {
            "mean": self.mean,
            "curvature": self.curvature,
            "prior_precision": self.prior_precision,
            "last_layer": None
            if last is None
            else {name: getattr(last, name) for name in ("name", "prior_precision", *LAST)},
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Posterior:
        """What :meth:`state_dict` gave."""
        last = state["last_layer"]
        return cls(
            state["mean"],
            state["curvature"],
            state["prior_precision"],
            None if last is None else LastLayerPosterior(**last),
        )

    def save(self, path: str | Path) -> None:
        """Writes all of it to one safetensors file."""
        tensors = {f"{kind}/{n}": v for kind in ("mean", "curvature") for n, v in getattr(self, kind).items()}
        header = {"format": FORMAT, "prior_precision": repr(self.prior_precision)}
        if (last := self.last_layer) is not None:
            tensors |= {f"last_layer/{name}": getattr(last, name) for name in LAST}
            header |= {"last_layer": last.name, "last_layer_prior_precision": repr(last.prior_precision)}
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: str | Path, module: nn.Module | None = None) -> Posterior:
        """Reads what :meth:`save` wrote, in this version or before; executes nothing from it.

        Args:
            path: The file.
            module: The network that it should be of; None: any.

        Raises:
            ValueError: The file is not a posterior, is damaged, or is one of another network.
        """
        with refusing_other_content(path, "posterior"):
            posterior = cls._loaded(path)
        if module is not None:
            posterior._check_network(path, module)
        return posterior

    @classmethod
    def _loaded(cls, path: str | Path) -> Posterior:
        tensors, header = read_tensors(path, "posterior")
        if header.get("format") not in POSTERIOR_FORMATS:
            raise ValueError(f"{path} is not a posterior file: its header does not say {FORMAT}.")
        parts: dict[str, dict[str, Tensor]] = {"mean": {}, "curvature": {}, "last_layer": {}}
        for name, value in tensors.items():
            kind, _, parameter = name.partition("/")
            kind = "curvature" if kind == "precision" else kind
            if kind not in parts:
                raise ValueError(f"{path} is not a posterior file: it has a tensor {name!r}.")
            parts[kind][parameter] = value
        last = None
        if parts["last_layer"]:
            delta = float(header["last_layer_prior_precision"])
            last = LastLayerPosterior(header["last_layer"], **parts["last_layer"], prior_precision=delta)
        return cls(parts["mean"], parts["curvature"], float(header.get("prior_precision", 0)), last)

    def _check_network(self, path: str | Path, module: nn.Module) -> None:
        theirs = {name: tuple(p.shape) for name, p in module.named_parameters()}
        ours = {name: tuple(v.shape) for name, v in self.mean.items()}
        different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if different:
            n = different[0]
            raise ValueError(
                f"{path} is of another network: {n} has shape {ours.get(n)} there and {theirs.get(n)} in the network; "
                "give the posterior of a run of this network."
            )
