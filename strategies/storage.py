"""What Avalanche's own replay can use: a storage policy, and a selection strategy for its ``ParametricBuffer``.

    ReplayPlugin(mem_size=200, storage_policy=SelectedExemplarsBuffer(200, herding))
    ReplayPlugin(mem_size=200, storage_policy=ParametricBuffer(200, "class", SelectionStrategy(herding, 200)))

Avalanche's replay knows neither weights nor soft labels: for those, :class:`BayesDualPlugin`. Its ``ReplayPlugin``
itself calls a function of Avalanche's that is deprecated (``ExemplarsBuffer.update``), and warns of it.
"""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset, concat_datasets
from avalanche.training.storage_policy import ExemplarsBuffer, ExemplarsSelectionStrategy
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from bayesdual.memory import Candidates, Selection, choose, coverage, quotas
from bayesdual.models import evaluating
from bayesdual.posterior import Posterior, Scored, score_examples
from bayesdual.strategies.plugin import predict_of
from bayesdual.stream import DatasetData, Inputs


class SelectedExemplarsBuffer(ExemplarsBuffer):
    """Exemplars chosen by a selection of ours, shared out over classes and their experiences as our memory does.

    Args:
        max_size: Greatest number of exemplars.
        selection: Which examples of each class are kept (see ``bayesdual.memory``); one that does not weight them.
    """

    def __init__(self, max_size: int, selection: Selection = coverage) -> None:
        super().__init__(max_size)
        self.selection = selection
        self.buffer_groups: dict[tuple[int, int], AvalancheDataset] = {}  # by (class, experience), best first
        self._counts: dict[tuple[int, int], int] = {}
        self._generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))

    @property
    def buffer(self) -> AvalancheDataset:  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody sets it
        return concat_datasets(self.buffer_datasets)

    @property
    def buffer_datasets(self) -> list[AvalancheDataset]:
        return list(self.buffer_groups.values())

    def post_adapt(self, agent_state: SupervisedTemplate, exp: Any) -> None:
        """Takes in the exemplars of an experience just learned.

        Raises:
            ValueError: The dataset has no targets, or the selection weights what it chooses or is none.
        """
        experience = 1 + max((e for _, e in self._counts), default=-1)
        data = DatasetData(exp.dataset, f"experience {experience} of the stream")
        known = _survey(agent_state, data)
        classes, numbers = data.y.unique(return_counts=True)
        self._counts |= {(c, experience): n for c, n in zip(classes.tolist(), numbers.tolist(), strict=True)}
        for (c, e), n in quotas(self._counts, self.max_size).items():
            if e == experience and n:
                mine = torch.nonzero(data.y == c).squeeze(1)
                rows = _choose(self.selection, known, mine, n, self._generator)
                self.buffer_groups[c, e] = exp.dataset.subset(mine[rows].tolist())
        self.resize(agent_state, self.max_size)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Trims what is kept to a new greatest number of exemplars, the least important first."""
        self.max_size = new_size
        shares = quotas(self._counts, new_size)
        kept = {key: group.subset(range(min(shares[key], len(group)))) for key, group in self.buffer_groups.items()}
        self.buffer_groups = {key: group for key, group in kept.items() if len(group)}


class SelectionStrategy(ExemplarsSelectionStrategy):
    """Orders examples by a selection of ours, for Avalanche's ``ParametricBuffer`` (use ``groupby="class"``).

    Args:
        selection: See ``bayesdual.memory``; one that does not weight what it chooses.
        at_most: Greatest number of examples ever kept of a group: the size of the memory. Choosing all examples of
            a class, only to drop most of them, would take minutes.
    """

    def __init__(self, selection: Selection, at_most: int) -> None:
        self.selection = selection
        self.at_most = at_most
        self._generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))

    def make_sorted_indices(self, strategy: SupervisedTemplate, data: AvalancheDataset) -> list[int]:
        """Returns the places of at most ``at_most`` examples, the most important first.

        Raises:
            ValueError: The dataset has no targets, or the selection weights what it chooses or is none.
        """
        known = _survey(strategy, DatasetData(data, "the group to select from"))
        every = torch.arange(len(data))
        return _choose(self.selection, known, every, min(self.at_most, len(data)), self._generator).tolist()


@torch.no_grad()
def _survey(strategy: SupervisedTemplate, data: DatasetData) -> Scored:
    model, posterior = strategy.model, Posterior.of(strategy.model, strategy.optimizer)
    with evaluating(model):
        every = torch.arange(len(data))
        return score_examples(model, predict_of(model, Inputs.of(data)), data, every, posterior, strategy.device)


def _choose(selection: Selection, known: Scored, mine: Tensor, n: int, generator: torch.Generator) -> Tensor:
    candidates = Candidates(known.features[mine], known.logits[mine], known.scores[mine])
    rows, weights = choose(selection, candidates, n, generator)
    if weights.max() > 1.001 * weights.min():
        raise ValueError(
            f"the selection {getattr(selection, '__name__', selection)} weights what it chooses, which Avalanche's "
            "replay cannot do: take herding or random, or BayesDualPlugin instead of ReplayPlugin."
        )
    return rows
