"""Names that stand in configurations of before and are found elsewhere today: the one table of them.

``OLD.*`` stands for every name of the module OLD. A name that is not here and is not there either is refused where it
is used, as any other would be.
"""

from __future__ import annotations

import re

MOVED = {
    # 0.2.0: packages by family
    "bayesdual.condensation.sees_means": "bayesdual.models.sees_means",
    "bayesdual.condensation.*": "bayesdual.memory.*",
    "bayesdual.data.*": "bayesdual.learner.*",
    "bayesdual.function_variance.*": "bayesdual.posterior.*",
    "bayesdual.history.*": "bayesdual.learner.*",
    "bayesdual.inspection.StreamCheckpoint": "bayesdual.learner.StreamCheckpoint",
    "bayesdual.ivon_callback.*": "bayesdual.ivon.*",
    "bayesdual.kronecker.*": "bayesdual.kprior.*",
    "bayesdual.metrics.*": "bayesdual.measures.*",
    "bayesdual.modes.*": "bayesdual.models.*",
    "bayesdual.rule.*": "bayesdual.ivon.*",
    "bayesdual.scenarios.data.*": "bayesdual.scenarios.datasets.*",
    "bayesdual.selection.random": "bayesdual.memory.random_selection",
    "bayesdual.selection.*": "bayesdual.memory.*",
    "bayesdual.sensitivity.*": "bayesdual.posterior.*",
    "bayesdual.spread.*": "bayesdual.memory.*",
    "bayesdual.strategies.peers": "bayesdual.strategies.baselines",
    "bayesdual.strategies.peers.*": "bayesdual.strategies.baselines.methods.*",
}
DOTTED = re.compile(r"(?<![\w./-])bayesdual(?:\.\w+)+(?![\w/]|\.\w)")  # no part of a path of a file


def current_name(dotted: str) -> str:
    """Where the thing of a dotted name is today.

    >>> current_name("bayesdual.selection.random")
    'bayesdual.memory.random_selection'
    """
    if dotted in MOVED:
        return MOVED[dotted]
    module, _, name = dotted.rpartition(".")
    new = MOVED.get(f"{module}.*")
    return dotted if new is None else new.removesuffix("*") + name


def current_names(text: str) -> str:
    """Replaces the old names in a text, as in a configuration or a flag."""
    return DOTTED.sub(lambda found: current_name(found[0]), text)
