"""Merges models in files, tensor by tensor: of each model a small part is in memory at a time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesdual.files import write_json, write_whole
from bayesdual.merging.files import ADAPTER, MODEL, POSTERIOR, Opened, open_model, write_tensors
from bayesdual.merging.sources import Held, Model, Source
from bayesdual.merging.statistics import is_statistic
from bayesdual.merging.streaming import Distances, Recipe, check_names, merged_curvature, merged_tensors
from bayesdual.posterior import POSTERIOR_FORMATS, KroneckerFactors, load_curvature

RECORD = "merge.json"
Report = Callable[[int, int], object]
"""Told after each tensor how many there are by now, and of how many."""


def merge_files(
    base: str | Path | None,
    models: Sequence[str | Path],
    output: str | Path,
    *,
    method: str = "gradient_matching",
    scales: Sequence[float] | None = None,
    base_scale: float = 1.0,
    alpha: float = 1.0,
    curvatures: Sequence[str | Path] | None = None,
    base_curvature: str | Path | None = None,
    classes: Sequence[Sequence[int]] | None = None,
    report: Report = lambda done, total: None,
    **options: Any,
) -> dict[str, Any]:
    """Merges models in files into a new directory; see ``bayesdual.merging.merge``, and ``bayesdual.merging.files``.

    Args:
        base: What they were trained from; None: zeros, as for adapters.
        models: T models.
        output: The directory. It gets ``model.safetensors`` (or, of adapters, ``adapter_model.safetensors`` with the
            configuration of the first), ``merge.json``, and ``posterior.safetensors`` if all models have a diagonal
            curvature and a prior precision is known. It is there whole, or not at all.
        method: A key of ``METHODS``.
        scales: s_t of each model; None: 1 each.
        base_scale: s_0.
        alpha: How far from the base the merged weights are, 0..1.
        curvatures: Files of ``bayesdual.posterior.save_curvature``, one for each model; None: the models' posteriors.
        base_curvature: That of the base.
        classes: The classes of the rows of each model's head; None: row c is that of class c.
        report: Told of the progress.
        **options: What the method has besides.

    Returns:
        What ``merge.json`` holds.

    Raises:
        ValueError: As for ``merge``; a file is not there or damaged, or the output is there already.
    """
    start, output = time.monotonic(), Path(output)
    if output.exists():
        raise ValueError(f"{output} is there already: give another directory to write to.")
    given = [None] * len(models) if curvatures is None else list(curvatures)
    for name, values in (("curvatures", given), ("scales", scales)):
        if values is not None and len(values) != len(models):
            raise ValueError(f"{name} are given of {len(values)} models, but there are {len(models)}.")
    opened = [_opened(path, h) for path, h in zip(models, given, strict=True)]
    first = _zeros_like(opened) if base is None else _opened(base, base_curvature)
    delta = options.get("prior_precision", _prior_precision([first, *opened]))
    if method == "gradient_matching":
        options = {"prior_precision": delta, **options}
    weights = (1.0,) * len(models) if scales is None else tuple(map(float, scales))
    recipe = Recipe(method, weights, base_scale, alpha, options, classes)
    sources = [model.model for model in opened]
    check_names(first.model, sources, classes)
    distances, names = Distances(sources), list(first.model.weights.shapes)
    as_adapter = all(model.kind == "adapter" for model in opened)
    place = output.with_name(f".{output.name}.{os.getpid()}")
    place.mkdir(parents=True)
    try:
        file = place / (ADAPTER if as_adapter else MODEL)
        merged = _reported(merged_tensors(first.model, sources, recipe, distances), len(names), report)
        write_whole(file, lambda path: write_tensors(path, merged, names, {"format": "pt"}))
        distances.check()
        if as_adapter and (configuration := opened[0].file.with_name("adapter_config.json")).is_file():
            shutil.copyfile(configuration, place / configuration.name)
        posterior = _write_posterior(place / POSTERIOR, file, first.model, sources, recipe, delta)
        record = _record(recipe, first, opened, distances, base)
        record |= {"posterior": posterior, "prior_precision": delta, "seconds": round(time.monotonic() - start, 3)}
        write_json(place / RECORD, record)
        os.replace(place, output)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return record


def _opened(path: str | Path, curvature: str | Path | None) -> Opened:
    opened = open_model(path)
    if curvature is None:
        return opened
    given = load_curvature(curvature)
    diagonal = {name: h for name, h in given.items() if isinstance(h, Tensor)}
    factors = {name: h for name, h in given.items() if isinstance(h, KroneckerFactors)}
    model = Model(opened.model.label, opened.model.weights, Held(diagonal), factors)
    return replace(opened, model=model, prior_precision=None)


def _zeros_like(models: Sequence[Opened]) -> Opened:
    """A base of zeros of the shapes of the first model."""
    first = models[0].model.weights if models else Held({})

    class Zeros:
        shapes = first.shapes

        def read(self, name: str, part: slice = slice(None)) -> Tensor:
            return torch.zeros_like(first.read(name, part))

    return Opened(Model("the base of zeros", Zeros()), None, "zeros", Path())


def _prior_precision(models: Iterable[Opened]) -> float:
    """That of the first that has one; 0 if none has."""
    return next((m.prior_precision for m in models if m.prior_precision is not None), 0.0)


def _reported(tensors: Iterable[tuple[str, Tensor]], total: int, report: Report) -> Iterator[tuple[str, Tensor]]:
    for done, item in enumerate(tensors, start=1):
        yield item
        report(done, total)


def _write_posterior(
    path: Path, weights: Path, base: Model, models: Sequence[Model], recipe: Recipe, delta: float
) -> bool:
    """Writes mean and curvature of the merged model, as far as they are known; returns whether they are."""
    known = [name for name in base.weights.shapes if all(name in model.diagonal.shapes for model in models)]
    if not known or not delta > 0:
        return False
    merged: Source = open_model(weights).model.weights
    parameters = [name for name in merged.shapes if not _is_statistic(merged, name)]

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name in parameters:
            yield f"mean/{name}", merged.read(name).view(merged.shapes[name])
        for name, value in merged_curvature(base, models, recipe):
            yield f"curvature/{name}", value

    names = [f"mean/{name}" for name in parameters] + [f"curvature/{name}" for name in known]
    metadata = {"format": POSTERIOR_FORMATS[0], "prior_precision": repr(float(delta))}
    write_whole(path, lambda temporary: write_tensors(temporary, tensors(), names, metadata))
    return True


def _is_statistic(source: Source, name: str) -> bool:
    return is_statistic(name, source.read(name, slice(0, 1)))


def _record(
    recipe: Recipe, base: Opened, models: Sequence[Opened], distances: Distances, given: str | Path | None
) -> dict[str, Any]:
    """What was merged, and how."""
    return {
        "method": recipe.method,
        "alpha": recipe.alpha,
        "base_scale": recipe.base_scale,
        "options": dict(recipe.options),
        "classes": None if recipe.classes is None else [list(rows) for rows in recipe.classes],
        "base": {"path": None if given is None else str(given), "kind": base.kind, **_curvature_of(base.model)},
        "models": [
            {
                "path": model.model.label,
                "kind": model.kind,
                "scale": scale,
                "distance": distance,
                **_curvature_of(model.model),
            }
            for model, scale, distance in zip(models, recipe.scales, distances.to_base(), strict=True)
        ],
        "tensors": len(base.model.weights.shapes),
    }


def _curvature_of(model: Model) -> dict[str, str]:
    kinds = {"kronecker": model.factors, "diagonal": model.diagonal.shapes}
    return {"curvature": next((kind for kind, known in kinds.items() if known), "none")}
