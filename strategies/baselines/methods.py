"""Avalanche's strategies as baselines in a comparison: with the model, stream, epochs, memory and measures of ours.

A baseline is a function that builds a strategy. Its first argument is what every strategy of Avalanche's takes; the
names of the others say what it reads from the benchmark's configuration (``FROM_CONFIGURATION``: epochs, memory size,
replay batch), or what a comparison may set or tune besides. What it does not take makes no other run: a comparison over
memories runs ``joint`` once. Baselines without a network (``bayesdual.strategies.baselines.closed_form``) are classes
of their own, and take only what their names say.

Quirks of Avalanche 0.6.0 that would be unfair to the baselines are made good here:

- DER and ER-ACE do not replay while the memory holds fewer examples than their replay batch: the batch shrinks to it.
- ER-ACE's loss is NaN once a probability underflows (0 log 0): the same loss is computed from log-probabilities.
- GDumb trains a copy of the model, so that the model it was given stays at the first experience: the copy is evaluated.
- SI's old weights share the weights' storage on a CPU, so that none has moved and none is held: it gets copies, and no
  negative importance, which would drive weights away.
- iCaRL rounds its share of the memory up for each class, so that it may keep some more than the memory size.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any, cast

import avalanche.training as training
import torch.nn.functional as F
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin, SynapticIntelligencePlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from bayesdual.strategies.baselines.closed_form import (
    LowRankLDA,
    NearestClassMean,
    QuantisedReplay,
    RandomRidge,
    StreamingLDA,
)
from bayesdual.strategies.baselines.covon import CoVON, CoVONPlugin

Common = dict[str, Any]
"""What every strategy takes: model, optimizer, batch sizes, epochs, device, evaluator."""


def naive(common: Common, epochs: int) -> SupervisedTemplate:
    """Plain training: what is forgotten without help."""
    return training.Naive(**common, train_epochs=epochs)


def joint(common: Common, epochs: int) -> SupervisedTemplate:
    """Plain training, on all experiences at once: what there is to reach."""
    return training.Naive(**common, train_epochs=epochs)


def replay(common: Common, epochs: int, memory_size: int, replay_batch_size: int) -> SupervisedTemplate:
    """Experience replay (Chaudhry et al., 2019), the memory balanced over experiences."""
    plugin = ReplayPlugin(memory_size, batch_size_mem=min(replay_batch_size, memory_size))
    return training.Naive(**common, train_epochs=epochs, plugins=[plugin])


def der(
    common: Common, epochs: int, memory_size: int, replay_batch_size: int, alpha: float = 0.1, beta: float = 0.5
) -> SupervisedTemplate:
    """DER++ (Buzzega et al., NeurIPS 2020): ``alpha`` weighs logits in replay, ``beta`` labels."""
    return training.DER(
        **common,
        train_epochs=epochs,
        mem_size=memory_size,
        batch_size_mem=replay_batch_size,
        alpha=alpha,
        beta=beta,
        plugins=[ReplayWhatThereIs(replay_batch_size)],
    )


def er_ace(common: Common, epochs: int, memory_size: int, replay_batch_size: int) -> SupervisedTemplate:
    """ER-ACE (Caccia et al., ICLR 2022): new examples compete among the new classes only."""
    strategy = training.ER_ACE(
        **common,
        train_epochs=epochs,
        mem_size=memory_size,
        batch_size_mem=replay_batch_size,
        plugins=[ReplayWhatThereIs(replay_batch_size)],
    )
    cast(Any, strategy).ace_criterion = asymmetric_cross_entropy
    return strategy


def gdumb(common: Common, memory_size: int, memory_epochs: int = 30) -> SupervisedTemplate:
    """GDumb (Prabhu et al., ECCV 2020): training from scratch on the memory, for ``memory_epochs``."""
    return training.GDumb(**common, train_epochs=memory_epochs, mem_size=memory_size)


def a_gem(
    common: Common, epochs: int, memory_size: int, replay_batch_size: int, n_experiences: int
) -> SupervisedTemplate:
    """A-GEM (Chaudhry et al., ICLR 2019): gradients projected so that the memory's loss does not rise."""
    return training.AGEM(
        **common,
        train_epochs=epochs,
        patterns_per_exp=max(memory_size // n_experiences, 1),
        sample_size=max(replay_batch_size, n_experiences),  # shared out over the experiences, rounded down
    )


def ewc(common: Common, epochs: int, ewc_lambda: float = 100.0) -> SupervisedTemplate:
    """Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), a penalty for each experience."""
    return training.EWC(**common, train_epochs=epochs, ewc_lambda=ewc_lambda)


def si(common: Common, epochs: int, si_lambda: float = 1.0) -> SupervisedTemplate:
    """Synaptic intelligence (Zenke et al., ICML 2017)."""
    return training.Naive(**common, train_epochs=epochs, plugins=[SIWithWeightsOfItsOwn(si_lambda)])


def lwf(common: Common, epochs: int, alpha: float = 1.0, temperature: float = 2.0) -> SupervisedTemplate:
    """Learning without forgetting (Li & Hoiem, ECCV 2016): ``alpha`` weighs distillation."""
    return training.LwF(**common, train_epochs=epochs, alpha=alpha, temperature=temperature)


def covon(
    common: Common, epochs: int, hess_init: float = 0.01, prior_precision: float = 1e-3, ess_factor: float = 1000.0
) -> SupervisedTemplate:
    """CoVON (Paul et al., 2026), which is its own optimizer (see ``covon.py``); ``optimizer`` says nothing here."""
    lr = common["optimizer"].defaults["lr"]
    optimizer = CoVON(common["model"].parameters(), lr, hess_init=hess_init, prior_precision=prior_precision)
    common = {**common, "optimizer": optimizer}
    return training.Naive(**common, train_epochs=epochs, plugins=[CoVONPlugin(optimizer, ess_factor)])


def icarl(common: Common, epochs: int, memory_size: int) -> SupervisedTemplate:
    """iCaRL (Rebuffi et al., CVPR 2017): herded exemplars, distillation, nearest mean of exemplars.

    Its loss and its classifier are its own; the network's last layer is only trained through.

    Raises:
        ValueError: The network is no sequence that ends in a linear layer.
    """
    common = dict(common)
    network = common.pop("model")
    if not isinstance(network, nn.Sequential) or not isinstance(network[-1], nn.Linear):
        raise ValueError("iCaRL needs a model.network that is an nn.Sequential with a Linear at its end: leave it out.")
    del common["criterion"]
    return training.ICaRL(
        **common,
        feature_extractor=nn.Sequential(*list(network)[:-1]),
        classifier=network[-1],
        memory_size=memory_size,
        buffer_transform=None,
        fixed_memory=True,
        train_epochs=epochs,
    )


def asymmetric_cross_entropy(new: Tensor, y: Tensor, replayed: Tensor, replayed_y: Tensor) -> Tensor:
    """The loss of ER-ACE: cross-entropy of new examples over the classes of their batch, of replayed ones over all.

    Args:
        new: Logits of new examples, shape (B, C).
        y: Their labels, shape (B,).
        replayed: Logits of replayed examples, shape (R, C).
        replayed_y: Their labels, shape (R,).
    """
    classes, places = y.unique(return_inverse=True)
    return (F.cross_entropy(new[:, classes], places) + F.cross_entropy(replayed, replayed_y)) / 2


class SIWithWeightsOfItsOwn(SynapticIntelligencePlugin):
    """Synaptic intelligence with copies of the weights, where Avalanche's shares their storage."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, **kwargs)
        for old in self.ewc_data[0].values():
            old.data = old.data.clone()

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        super().before_training_iteration(strategy, **kwargs)
        for old in self.syn_data["old_theta"].values():
            old.data = old.data.clone()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        super().after_training_exp(strategy, **kwargs)
        for importance in self.ewc_data[1].values():
            importance.data = importance.data.clamp_min(0)


class ReplayWhatThereIs(SupervisedPlugin):
    """Lets the replay batch of DER and ER-ACE be no larger than what their memory holds."""

    def __init__(self, replay_batch_size: int) -> None:
        super().__init__()
        self._wanted = replay_batch_size

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        held = len(strategy.storage_policy.buffer) if strategy.storage_policy.buffer_groups else self._wanted
        strategy.batch_size_mem = min(self._wanted, held)


BASELINES: dict[str, Callable[..., Any]] = {
    "naive": naive,
    "joint": joint,
    "Replay": replay,
    "DER++": der,
    "ER-ACE": er_ace,
    "GDumb": gdumb,
    "A-GEM": a_gem,
    "EWC": ewc,
    "SI": si,
    "LwF": lwf,
    "CoVON": covon,
    "iCaRL": icarl,
    "streaming LDA": StreamingLDA,
    "low-rank LDA": LowRankLDA,
    "quantised replay": QuantisedReplay,
    "random ridge": RandomRidge,
    "nearest class mean": NearestClassMean,
}
BOUNDS = {"naive": "lower", "joint": "upper"}  # what a comparison measures the others by


def bound(name: str) -> str | None:
    """Whether a baseline is the ``upper`` or the ``lower`` bound of what the others can reach, or neither."""
    return BOUNDS.get(name)


def baseline_named(name: str) -> Callable[..., Any]:
    """The function that builds a baseline, or the class of one in closed form.

    Raises:
        ValueError: There is none of that name.
    """
    if name in BASELINES:
        return BASELINES[name]
    module, _, function = name.rpartition(".")
    if module:
        try:
            return getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"baseline {name} is not there ({error}).") from None
    lower = {known.lower(): known for known in BASELINES}
    close = get_close_matches(name.lower(), lower, 1)
    hint = f"did you mean {lower[close[0]]}? " if close else ""
    raise ValueError(f"{name!r} is not a baseline; {hint}There are {', '.join(BASELINES)}.")
