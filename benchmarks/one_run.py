"""One run by the Lightning host from a changed configuration, and results on disk: what ``fromp.py`` is made of."""

from __future__ import annotations

import json
import pydoc
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml

VALIDATION = 0.1


class Runs:
    """Runs and their results, one JSON line each: a benchmark that was stopped goes on where it was.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known = {self._key(line["run"]): line["results"] for line in map(json.loads, lines)}

    def get(self, run: dict[str, Any]) -> dict[str, Any] | None:
        """The results of a run, or None if it was not made."""
        return self._known.get(self._key(run))

    def make(self, run: dict[str, Any], function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The results of a run, which ``function`` gives if they are not there."""
        if (known := self.get(run)) is not None:
            return known
        results = function()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"run": run, "results": results}) + "\n")
        self._known[self._key(run)] = results
        print(f"{describe(run)}: {results['accuracy']:.4f} in {results['seconds']:.0f} s", flush=True)
        return results

    @staticmethod
    def _key(run: dict[str, Any]) -> str:
        return json.dumps(run, sort_keys=True)


def describe(run: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value}" for name, value in run.items())


def read_config(path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration with some settings changed, named by their dotted paths."""
    config = yaml.safe_load(Path(path).read_text())
    for name, value in settings.items():
        *above, last = name.split(".")
        place = config
        for key in above:
            place = place[key]
        place[last] = value
    return config


def build(spec: Any, **more: Any) -> Any:
    """What a value of a configuration stands for: an object of a class_path, a function of this package, or itself."""
    if isinstance(spec, dict) and "class_path" in spec:
        arguments = {name: build(value) for name, value in spec.get("init_args", {}).items()}
        return pydoc.locate(spec["class_path"])(**arguments, **more)
    return pydoc.locate(spec) if isinstance(spec, str) and spec.startswith("bayesdual.") else spec


@lru_cache(maxsize=1)
def build_benchmark(spec: str, validation: float) -> Any:
    """The benchmark of a configuration's ``data.benchmark``, as JSON; read once for all runs."""
    return build(json.loads(spec), validation=validation)


def learn(config: dict[str, Any], seed: int, evaluate_on: str = "test") -> dict[str, Any]:
    """Learns the stream of a configuration by the Lightning host, without writing anything.

    Args:
        config: As in ``configs/``.
        seed: Seed of all that is random.
        evaluate_on: "test" learns from all training data; "valid" from 90%, and evaluates on the rest.
    """
    from lightning import Trainer, seed_everything

    from bayesdual.data import StreamDataModule
    from bayesdual.learner import Learner

    validation = VALIDATION if evaluate_on == "valid" else 0.0
    benchmark = build_benchmark(json.dumps(config["data"]["benchmark"]), validation)
    seed_everything(seed, verbose=False)
    model = config["model"]
    optimizer = partial(pydoc.locate(model["optimizer"]["class_path"]), **model["optimizer"]["init_args"])
    learner = Learner(build(model["network"]), build(model["algorithm"]), optimizer, model["lr_end"])
    data = StreamDataModule(benchmark, config["data"]["epochs"], config["data"]["batch_size"], evaluate_on)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, datamodule=data)
    results = learner.history.results()
    return {
        "accuracy": results["average_accuracy"],
        "by_experience": results["accuracy_matrix"][-1],
        "forgetting": results["forgetting"],
        "nll": results["nll"],
        "ece": results["ece"],
        "seconds": results["seconds_total"],
        "seconds_memory": results["seconds_memory"],
    }


def quiet(threads: int) -> None:
    """Sets PyTorch's threads, and silences what Lightning and Avalanche say of every run."""
    import logging

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
