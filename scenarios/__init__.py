"""Continual-learning benchmarks: callables that return an Avalanche benchmark, and the datasets that they are made of.

The names below are imported when first asked for, since importing Avalanche takes seconds;
``bayesdual.scenarios.datasets`` alone never needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.lazy import attach

SCENARIOS = {
    "SplitDigits": "split",
    "SplitMNIST": "split",
    "SplitFMNIST": "split",
    "SplitCIFAR10": "split",
    "SplitCIFAR100": "split",
    "PermutedDigits": "domain",
    "PermutedFMNIST": "domain",
    "PermutedMNIST": "domain",
    "RotatedDigits": "domain",
    "RotatedMNIST": "domain",
    "features_of": "features",
    "from_arrays": "arrays",
    "from_folder": "folder",
    "from_table": "table",
    "SplitBANKING77": "texts",
    "SplitCLINC150": "texts",
}
_HOMES = {
    **SCENARIOS,
    **dict.fromkeys(
        ("RawDataset", "cifar10", "cifar100", "digits", "fashion_mnist", "mnist", "stratified_split"), "datasets"
    ),
    **dict.fromkeys(("domain_benchmark", "permutations", "rotations_of"), "domain"),
    "split_benchmark": "split",
    **dict.fromkeys(("Text", "Texts", "banking77", "clinc150", "tokenised"), "texts"),
}

__all__ = [
    "SCENARIOS",
    "PermutedDigits",
    "PermutedFMNIST",
    "PermutedMNIST",
    "RawDataset",
    "RotatedDigits",
    "RotatedMNIST",
    "SplitBANKING77",
    "SplitCIFAR10",
    "SplitCIFAR100",
    "SplitCLINC150",
    "SplitDigits",
    "SplitFMNIST",
    "SplitMNIST",
    "Text",
    "Texts",
    "banking77",
    "cifar10",
    "cifar100",
    "clinc150",
    "digits",
    "domain_benchmark",
    "fashion_mnist",
    "features_of",
    "from_arrays",
    "from_folder",
    "from_table",
    "mnist",
    "permutations",
    "rotations_of",
    "split_benchmark",
    "stratified_split",
    "tokenised",
]

if TYPE_CHECKING:
    from bayesdual.scenarios.arrays import from_arrays
    from bayesdual.scenarios.datasets import (
        RawDataset,
        cifar10,
        cifar100,
        digits,
        fashion_mnist,
        mnist,
        stratified_split,
    )
    from bayesdual.scenarios.domain import (
        PermutedDigits,
        PermutedFMNIST,
        PermutedMNIST,
        RotatedDigits,
        RotatedMNIST,
        domain_benchmark,
        permutations,
        rotations_of,
    )
    from bayesdual.scenarios.features import features_of
    from bayesdual.scenarios.folder import from_folder
    from bayesdual.scenarios.split import (
        SplitCIFAR10,
        SplitCIFAR100,
        SplitDigits,
        SplitFMNIST,
        SplitMNIST,
        split_benchmark,
    )
    from bayesdual.scenarios.table import from_table
    from bayesdual.scenarios.texts import SplitBANKING77, SplitCLINC150, Text, Texts, banking77, clinc150, tokenised
else:
    _IN_AVALANCHE = ("arrays", "domain", "features", "folder", "split", "table", "texts")
    __getattr__, __dir__ = attach(__name__, _HOMES, dict.fromkeys(_IN_AVALANCHE, "avalanche"))
