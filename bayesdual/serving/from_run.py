"""From what a run has left to a predictor: files are data, of which the network's class alone is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from bayesdual.dotted import named
from bayesdual.files import is_damaged, refusing_other_content
from bayesdual.models import of_network, widen_as_saved
from bayesdual.posterior import Posterior
from bayesdual.prediction import PredictionName, Seen, prediction_by
from bayesdual.serving.predictor import Predictor
from bayesdual.stream import Inputs

CLASSES = {"name": "categorical"}


def load(
    path: str | Path,
    network: nn.Module | None = None,
    prediction: PredictionName | None = None,
    samples: int | None = None,
) -> Predictor:
    """Loads what a run has learned, on the CPU.

    Args:
        path: A run directory, of which the last checkpoint is taken, or a checkpoint.
        network: The network, as it was made for the run; None: made as the run's ``config.yaml`` says, by importing the
            class that it names, as ``fit`` did.
        prediction: ``mean``, ``samples``, ``linearised`` or ``weight_samples``; None: as in the run's evaluations.
        samples: How many; None: likewise.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no checkpoint of bayesdual, damaged, or of another network.
    """
    path = Path(path)
    checkpoint = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    saved = _read(checkpoint)
    with refusing_other_content(checkpoint, "Learner's checkpoint"):
        return _loaded(checkpoint, saved, network, prediction, samples)


def _loaded(
    checkpoint: Path,
    saved: dict[str, Any],
    network: nn.Module | None,
    prediction: PredictionName | None,
    samples: int | None,
) -> Predictor:
    settings = settings_beside(checkpoint)
    state = saved["bayesdual"]
    if state.get("inputs") is None:
        raise ValueError(f"{checkpoint} does not say how its inputs are normalised, as of before 0.3: learn it again.")
    if (likelihood := state["algorithm"].get("likelihood", CLASSES)["name"]) != CLASSES["name"]:
        raise ValueError(
            f"{checkpoint} was learned with the likelihood {likelihood}, and classes by softmax alone are served: "
            "predict by `python -m bayesdual predict --config FILE --ckpt_path FILE`."
        )
    if network is None:
        network = made(settings.get("network"), checkpoint)
    tensors = of_network(saved["state_dict"])
    widen_as_saved(network, tensors)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{checkpoint} is of another network ({reason}): give load the network of the run.") from None
    by = prediction or settings.get("prediction", "mean")
    return Predictor(
        network,
        Inputs.from_state_dict(state["inputs"]),
        prediction_by(by, samples or settings.get("samples", 32)),
        _posterior(by, saved, network),
        saved["state_dict"].get("task_mask"),
        state.get("classes", ()),
        Seen.from_state_dict(state.get("usual")),
    )


def _posterior(by: str, saved: dict[str, Any], network: nn.Module) -> Posterior | None:
    """The one that a prediction is by: that of all data, or, for ``weight_samples``, the one that IVON learned.

    Raises:
        ValueError: IVON's is asked for, and the run had another optimizer.
    """
    if by == "weight_samples":
        return Posterior.in_checkpoint(saved, network)
    of_all = None if by == "mean" else saved["bayesdual"]["algorithm"].get("posterior")
    return None if of_all is None else Posterior.from_state_dict(of_all)


def _read(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        raise FileNotFoundError(f"there is no {checkpoint}: give a run directory or one of its checkpoints.")
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if "bayesdual" in saved and not is_damaged(checkpoint):
            return saved
    except Exception:  # whatever a damaged file makes of it
        pass
    raise ValueError(f"{checkpoint} is not a checkpoint of bayesdual, or is damaged: give another one.")


def settings_beside(checkpoint: Path) -> dict[str, Any]:
    """The settings of the model in the run directory of a checkpoint; empty if there are none."""
    config = checkpoint.parent.parent / "config.yaml"
    if not config.is_file():
        return {}
    import yaml  # comes with the command line, which left the file

    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    return content.get("model", {}) if isinstance(content, dict) else {}


def made(spec: Any, checkpoint: Path) -> nn.Module:
    """A network by class path and arguments.

    Raises:
        ValueError: There is none, or it cannot be made.
    """
    if not isinstance(spec, dict) or "class_path" not in spec:
        raise ValueError(f"no config.yaml of a run says which network {checkpoint} is of: give load the network.")
    try:
        network = _made(spec)
    except Exception as error:  # whatever a class of the user's raises
        raise ValueError(f"{spec['class_path']} cannot be made again ({error}): give load the network.") from None
    return network


def _made(value: Any) -> Any:
    """A value of a configuration: networks by class path and arguments, at any depth; nothing else is called."""
    if isinstance(value, dict) and "class_path" in value:
        kind = named(value["class_path"])
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise ValueError(f"{value['class_path']} is no torch.nn.Module")
        return kind(**{k: _made(v) for k, v in value.get("init_args", {}).items()})
    return [_made(part) for part in value] if isinstance(value, list) else value
