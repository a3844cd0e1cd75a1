"""Models merged one block after the other: a parameter, part by part where the method allows it, or a whole layer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bayesdual.merging.average import average
from bayesdual.merging.block import Block
from bayesdual.merging.fisher import fisher
from bayesdual.merging.gradient_matching import gradient_matching
from bayesdual.merging.heads import heads_of, joined
from bayesdual.merging.regmean import regmean
from bayesdual.merging.sources import WHOLE, Model
from bayesdual.merging.statistics import is_statistic, merged_counter, merged_mean, merged_variance, partner_of
from bayesdual.merging.task_arithmetic import task_arithmetic
from bayesdual.merging.ties import ties, trimming
from bayesdual.posterior import Curvature, KroneckerFactors

PART = 2**18  # entries of a parameter that are merged at a time
FAR = 5.0  # as many times farther from the base than from one another, models are not of this base


@dataclass(frozen=True)
class Method:
    """A way to merge.

    Attributes:
        merge: Merges a block; its keywords are the method's options, unless they are those of ``survey``.
        curvature: Whether every parameter that the models changed needs a curvature.
        factors: Whether it takes Kronecker factors, of whole layers.
        survey: What has to be known of a model's change of a whole parameter before it is merged part by part: from a
            function that goes through the change, and how many entries it has.
    """

    merge: Callable[..., Tensor]
    curvature: bool = False
    factors: bool = False
    survey: Callable[..., float] | None = None

    def options(self) -> list[str]:
        """The names of its options."""
        given = inspect.signature(self.survey).parameters if self.survey else inspect.signature(self.merge).parameters
        return list(given)[2 if self.survey else 1 :]


METHODS: Mapping[str, Method] = {
    "average": Method(average),
    "task_arithmetic": Method(task_arithmetic),
    "ties": Method(ties, survey=trimming),
    "fisher": Method(fisher, curvature=True, factors=True),
    "regmean": Method(regmean, factors=True),
    "gradient_matching": Method(gradient_matching, curvature=True, factors=True),
}
"""Every method of merging, by the name that it is asked for by."""


@dataclass(frozen=True)
class Recipe:
    """How models are merged.

    Attributes:
        method: A key of ``METHODS``.
        scales: s_t of each model.
        base_scale: s_0.
        alpha: How far from the base the merged weights are.
        options: Keywords of the method.
        classes: The classes of the rows of each model's head; None: row c is that of class c.

    Raises:
        ValueError: One of them cannot be.
    """

    method: str
    scales: tuple[float, ...]
    base_scale: float = 1.0
    alpha: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"{self.method!r} is not a method of merging: choose {', '.join(METHODS)}.")
        if not self.scales:
            raise ValueError("there is no model to merge: give at least one.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}: give a number from 0, the base, to 1.")
        for name, values in (("scales", self.scales), ("base_scale", (self.base_scale,))):
            if not all(math.isfinite(s) and s >= 0 for s in values):
                raise ValueError(f"{name} is {values}: give finite numbers of 0 or more.")
        if sum(self.scales) == 0:
            raise ValueError("the scales are all 0: give at least one model a positive one.")
        if self.classes is not None and len(self.classes) != len(self.scales):
            raise ValueError(f"classes are given of {len(self.classes)} models, but there are {len(self.scales)}.")
        known = METHODS[self.method].options()
        for name in self.options:
            if name not in known:
                has = f"its options are {', '.join(known)}" if known else "it has no options"
                raise ValueError(f"{name!r} is not an option of {self.method}: {has}.")

    def merge(self, block: Block) -> Tensor:
        method = METHODS[self.method]
        return method.merge(block) if method.survey else method.merge(block, **self.options)

    def survey(self, change: Callable[[], Iterator[Tensor]], entries: int) -> float | None:
        """What the method has to know of a model's change of a whole parameter; None: nothing."""
        survey = METHODS[self.method].survey
        return survey(change, entries, **self.options) if survey else None


class Distances:
    """How far models are from the base and from one another, summed up while they are merged."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._labels = [model.label for model in models]
        n = len(models) + 1  # the base first
        self._squares = torch.zeros(n, n, dtype=torch.float64)

    def add(self, block: Block) -> None:
        points = [block.base, *block.models]
        for i, a in enumerate(points):
            for j in range(i):
                self._squares[i, j] += (a - points[j]).square().sum(dtype=torch.float64).cpu()

    def to_base(self) -> list[float]:
        """The distance of each model, in the Euclidean norm over all parameters."""
        return self._squares[1:, 0].sqrt().tolist()

    def check(self) -> None:
        """Refuses a base that is not the base.

        Raises:
            ValueError: The models are much closer to one another than to it.
        """
        apart = float(self._squares[1:, 1:].max().sqrt()) if len(self._labels) > 1 else 0.0
        nearest = min(self.to_base())
        if 0 < FAR * apart < nearest:
            raise ValueError(
                f"the models are at most {apart:.3g} apart, but the base is at least {nearest:.3g} away from each of "
                "them: it is not what they were trained from; give the base that was."
            )


def merged_tensors(
    base: Model, models: Sequence[Model], recipe: Recipe, distances: Distances | None = None
) -> Iterator[tuple[str, Tensor]]:
    """All merged tensors, in the order of the base but that a bias may follow the weights of its layer at once.

    Args:
        base: The base.
        models: T models.
        recipe: How.
        distances: Where to add up distances; None: nowhere.

    Raises:
        ValueError: Names or shapes do not match, a curvature is missing or not positive, or a number is not finite.
    """
    method = METHODS[recipe.method]
    heads = check_names(base, models, recipe.classes)
    if recipe.method == "regmean" and not any(model.factors for model in models):
        raise ValueError("regmean needs Kronecker factors: measure them by bayesdual.posterior.kronecker_curvature.")
    done: set[str] = set()
    for name in base.weights.shapes:
        if name in done:
            continue
        whole = base.whole(name)
        if is_statistic(name, whole):
            yield name, _statistic(name, base, models, recipe.scales).to(whole.dtype)
        elif name in heads:
            rows = joined(_exact(whole), [_exact(m.whole(name)) for m in models], recipe.classes, recipe.scales)
            yield name, rows.to(whole.dtype)
        elif method.factors and any(name in model.factors for model in models):
            block, bias = _layer(name, base, models, recipe)
            if distances is not None:
                distances.add(block)
            merged = recipe.merge(block)
            if bias is not None:
                done.add(bias)
                yield bias, merged[:, -1].to(base.whole(bias).dtype)
                merged = merged[:, :-1]
            yield name, merged.reshape(whole.shape).to(whole.dtype)
        else:
            yield name, _parameter(name, whole, base, models, recipe, distances)


def merged_curvature(base: Model, models: Sequence[Model], recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
    """alpha sum_t s_t h_t + s_0 h_0, the diagonals, of the parameters for which all models have one."""
    heads = check_names(base, models, recipe.classes)
    for name, shape in base.weights.shapes.items():
        if any(name not in model.diagonal.shapes for model in models):
            continue
        if name in heads:
            yield name, _curvature_of_head(name, shape, base, models, recipe)
            continue
        dtype = torch.promote_types(models[0].diagonal.read(name, slice(0, 1)).dtype, torch.float32)
        result = torch.zeros(shape.numel(), dtype=dtype)
        for part in _parts(shape.numel(), PART):
            for model, s in zip(models, recipe.scales, strict=True):
                result[part] += recipe.alpha * s * _checked(model, name, part)
            if name in base.diagonal.shapes:
                result[part] += recipe.base_scale * _checked(base, name, part)
        yield name, result.view(shape)


def _curvature_of_head(name: str, shape: torch.Size, base: Model, models: Sequence[Model], recipe: Recipe) -> Tensor:
    h = [_checked(model, name).view(model.diagonal.shapes[name]) for model in models]
    lists = [range(len(part)) for part in h] if recipe.classes is None else recipe.classes
    rows = max(shape[0], *(1 + max(classes) for classes in lists))
    total = h[0].new_zeros(rows, *shape[1:])
    for part, s, classes in zip(h, recipe.scales, lists, strict=True):
        total[list(classes)] += recipe.alpha * s * part
    if name in base.diagonal.shapes:
        total[: shape[0]] += recipe.base_scale * _checked(base, name).view(shape)
    return total


def check_names(base: Model, models: Sequence[Model], classes: Sequence[Sequence[int]] | None) -> set[str]:
    """Sees that all models have the same tensors; returns the names of heads, which may differ in their classes.

    Raises:
        ValueError: They have not.
    """
    ours = base.weights.shapes
    for model in models:
        theirs = model.weights.shapes
        for a, b, left, right in ((base, model, ours, theirs), (model, base, theirs, ours)):
            if missing := sorted(left.keys() - right.keys()):
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise ValueError(
                    f"{b.label} has no {missing[0]!r}{more}, which {a.label} has: merge models of one architecture."
                )
    heads = heads_of(ours, [model.weights.shapes for model in models], classes)
    for model in models:
        for name, shape in model.weights.shapes.items():
            if shape != ours[name] and name not in heads:
                raise ValueError(
                    f"{name!r} has shape {tuple(shape)} in {model.label} and {tuple(ours[name])} in {base.label}: "
                    "merge models of one architecture."
                )
    return heads


def _parameter(
    name: str, like: Tensor, base: Model, models: Sequence[Model], recipe: Recipe, distances: Distances | None
) -> Tensor:
    """A parameter merged by itself, part by part if its method allows it."""
    method = METHODS[recipe.method]
    result = torch.empty_like(like).reshape(-1)
    limits = [recipe.survey(partial(_change, name, base, model, len(result)), len(result)) for model in models]
    for part in _parts(len(result), PART):
        weights = [_finite(model, name, part) for model in (base, *models)]
        known = method.curvature and not all(torch.equal(weights[0], other) for other in weights[1:])
        h: list[Curvature | None] = [None] * len(models)
        h0 = None
        if known:
            h = [_checked(m, name, part) * s for m, s in zip(models, recipe.scales, strict=True)]
            h0 = _checked(base, name, part) * recipe.base_scale if name in base.diagonal.shapes else None
        block = Block(weights[0], weights[1:], recipe.scales, recipe.alpha, h, h0, [n for n in limits if n is not None])
        if distances is not None:
            distances.add(block)
        result[part] = (recipe.merge(block) if known or not method.curvature else block.base).to(like.dtype).reshape(-1)
    return result.view(like.shape)


def _change(name: str, base: Model, model: Model, entries: int) -> Iterator[Tensor]:
    """theta_t - theta_0 of a parameter, part by part."""
    for part in _parts(entries, PART):
        yield _finite(model, name, part) - _finite(base, name, part)


def _parts(entries: int, step: int) -> Iterator[slice]:
    for start in range(0, entries, step):
        yield slice(start, start + step)


def _layer(name: str, base: Model, models: Sequence[Model], recipe: Recipe) -> tuple[Block, str | None]:
    """The weights of a layer, shape (O, D), its bias as the last column, and the name of that."""
    for model in models:
        if name not in model.factors:
            raise ValueError(f"{model.label} has no Kronecker factors of {name!r}: measure them for every model.")
    if name in base.diagonal.shapes and name not in base.factors:
        raise ValueError(f"{base.label} has a diagonal of {name!r} and no Kronecker factors, as the models have.")
    biases = {m.factors[name].bias for m in (*models, base) if name in m.factors}
    if len(biases) > 1:
        raise ValueError(f"the Kronecker factors of {name!r} have a bias in one model and none in another.")
    (bias,) = biases

    def matrix(model: Model) -> Tensor:
        weight = _finite(model, name).view(len(model.whole(name)), -1)
        return weight if bias is None else torch.cat([weight, _finite(model, bias)[:, None]], 1)

    def factors(model: Model, scale: float) -> KroneckerFactors:
        h = model.factors[name]
        for side, other in ((h.inputs, weights[0].shape[1]), (h.outputs, weights[0].shape[0])):
            if side.shape != (other, other):
                raise ValueError(
                    f"{model.label} has Kronecker factors of {name!r} of shapes {tuple(h.inputs.shape)} and "
                    f"{tuple(h.outputs.shape)}, but the layer's weights have shape {tuple(weights[0].shape)}."
                )
        for side in (h.inputs, h.outputs):
            if not bool(side.isfinite().all() & (side.diagonal() >= 0).all()):
                raise ValueError(f"{model.label} has a curvature of {name!r} that is negative or not finite.")
        return KroneckerFactors(_exact(h.inputs) * scale, _exact(h.outputs), bias)

    weights = [matrix(model) for model in (base, *models)]
    h = [factors(model, s) for model, s in zip(models, recipe.scales, strict=True)]
    h0 = factors(base, recipe.base_scale) if name in base.factors else None
    return Block(weights[0], weights[1:], recipe.scales, recipe.alpha, h, h0), bias


def _statistic(name: str, base: Model, models: Sequence[Model], scales: Sequence[float]) -> Tensor:
    values = [model.whole(name) for model in models]
    if not values[0].is_floating_point():
        return merged_counter(values)
    mean = partner_of(name)
    exact = [_finite(model, name).view(base.weights.shapes[name]) for model in models]
    if mean is not None and mean in base.weights.shapes:
        return merged_variance(exact, [_finite(m, mean).view(base.weights.shapes[mean]) for m in models], scales)
    return merged_mean(exact, scales)


def _exact(tensor: Tensor) -> Tensor:
    """In float32 or better."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _finite(model: Model, name: str, part: slice = WHOLE) -> Tensor:
    value = _exact(model.weights.read(name, part))
    if not bool(value.isfinite().all()):
        raise ValueError(f"{model.label} has a number in {name!r} that is not finite: it cannot be merged.")
    return value


def _checked(model: Model, name: str, part: slice = WHOLE) -> Tensor:
    """Part of the diagonal of a curvature."""
    if name not in model.diagonal.shapes:
        raise ValueError(
            f"{model.label} has no curvature of {name!r}: measure it (bayesdual.posterior.ggn_diagonal), or merge by "
            "average, task_arithmetic or ties, which need none."
        )
    if model.diagonal.shapes[name] != model.weights.shapes[name]:
        raise ValueError(
            f"{model.label} has a curvature of {name!r} of shape {tuple(model.diagonal.shapes[name])}, but the "
            f"parameter has shape {tuple(model.weights.shapes[name])}."
        )
    value = _exact(model.diagonal.read(name, part))
    if not bool(((value >= 0) & value.isfinite()).all()):
        raise ValueError(f"{model.label} has a curvature of {name!r} that is negative or not finite.")
    return value
