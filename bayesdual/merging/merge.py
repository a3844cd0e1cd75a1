"""One model made of several that were trained from a common base, without their data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, overload

from torch import Tensor, nn

from bayesdual.merging.sources import Held, Model
from bayesdual.merging.streaming import Distances, Recipe, merged_curvature, merged_tensors
from bayesdual.posterior import Curvature, KroneckerFactors, Posterior

Curvatures = Mapping[str, Curvature]


@overload
def merge(base: Posterior, models: Sequence[Posterior], **how: Any) -> Posterior: ...
@overload
def merge(base: nn.Module, models: Sequence[nn.Module], **how: Any) -> nn.Module: ...
@overload
def merge(base: Mapping[str, Tensor], models: Sequence[Mapping[str, Tensor]], **how: Any) -> dict[str, Tensor]: ...
def merge(
    base: Any,
    models: Sequence[Any],
    *,
    method: str = "gradient_matching",
    scales: Sequence[float] | None = None,
    base_scale: float = 1.0,
    alpha: float = 1.0,
    curvatures: Sequence[Curvatures] | None = None,
    base_curvature: Curvatures | None = None,
    classes: Sequence[Sequence[int]] | None = None,
    **options: Any,
) -> Any:
    """Merges models that were trained from a common base.

    Numbers are computed in float32 or better, and given back in the base's type. Running statistics of batch norms are
    those of all models' data (``bayesdual.merging.statistics``). Heads of different classes are joined, one row a class
    (``bayesdual.merging.heads``).

    Args:
        base: theta_0: tensors by name, a module, or a posterior.
        models: T of the same kind.
        method: A key of ``METHODS``: average, task_arithmetic, ties, fisher, regmean or gradient_matching.
        scales: s_t, how much each model counts; None: 1 each. Curvatures that are sums over examples count as they are.
        base_scale: s_0, how much the base's curvature counts.
        alpha: How far from the base the merged weights are, 0..1.
        curvatures: Of each model, by parameter name: diagonals (``bayesdual.posterior.ggn_diagonal``), or Kronecker
            factors (``kronecker_curvature``). Posteriors bring their own.
        base_curvature: The base's; None: 0.
        classes: The classes of the rows of each model's head; None: row c is that of class c.
        **options: What the method has besides: ``prior_precision`` and ``damping`` of gradient_matching, ``density`` of
            ties, ``off_diagonal`` of regmean. The prior precision of a posterior is its own unless given.

    Returns:
        What ``base`` is: a dictionary of new tensors, a copy of the module with the merged weights in eval mode, or a
        posterior with curvature alpha sum_t s_t H_t + s_0 H_0 around the merged mean (and none of a last layer).

    Raises:
        TypeError: The base and the models are not of one kind.
        ValueError: Names or shapes do not match, the base is not what the models were trained from, a curvature is
            missing or negative, a number is not finite, or an argument cannot be.
    """
    models = list(models)
    if not any(all(isinstance(model, kind) for model in (base, *models)) for kind in (Posterior, nn.Module, Mapping)):
        names = ", ".join(type(model).__name__ for model in (base, *models))
        raise TypeError(f"base and models are {names}: give modules, posteriors, or mappings of tensors, of one kind.")
    if curvatures is not None and len(curvatures) != len(models):
        raise ValueError(f"curvatures are given of {len(curvatures)} models, but there are {len(models)}.")
    if isinstance(base, Posterior):
        if curvatures is not None or base_curvature is not None:
            raise ValueError("posteriors bring their own curvature: leave curvatures and base_curvature out.")
        curvatures, base_curvature = [model.curvature for model in models], base.curvature
        if method == "gradient_matching":
            options = {"prior_precision": base.prior_precision, **options}
    scales = (1.0,) * len(models) if scales is None else tuple(map(float, scales))
    if len(scales) != len(models):
        raise ValueError(f"scales are given of {len(scales)} models, but there are {len(models)}.")
    recipe = Recipe(method, scales, base_scale, alpha, options, classes)
    given = curvatures or [{}] * len(models)
    sources = [_model(f"models[{t}]", m, h) for t, (m, h) in enumerate(zip(models, given, strict=True))]
    first, distances = _model("base", base, base_curvature or {}), Distances(sources)
    merged = dict(merged_tensors(first, sources, recipe, distances))
    distances.check()
    merged = {name: merged[name] for name in first.weights.shapes}
    if isinstance(base, Posterior):
        return Posterior(merged, dict(merged_curvature(first, sources, recipe)), base.prior_precision)
    if isinstance(base, nn.Module):
        module = copy.deepcopy(base).eval()
        module.load_state_dict(merged)
        return module
    return merged


def _model(label: str, model: Any, curvature: Curvatures) -> Model:
    tensors = model
    if isinstance(model, Posterior):
        tensors = model.mean
    elif isinstance(model, nn.Module):
        tensors = model.state_dict()
    diagonal = {name: h for name, h in curvature.items() if isinstance(h, Tensor)}
    factors = {name: h for name, h in curvature.items() if isinstance(h, KroneckerFactors)}
    return Model(label, Held(tensors), Held(diagonal), factors)
