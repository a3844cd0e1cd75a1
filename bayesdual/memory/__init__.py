"""The memory of exemplars: its budget, what is kept, how it is merged, and what it says."""

from bayesdual.memory.codec import CosineCodec
from bayesdual.memory.cosine_spread import CosineSpread
from bayesdual.memory.exemplars import IMPOSSIBLE, Exemplars, concatenate
from bayesdual.memory.file import FORMAT
from bayesdual.memory.filling import candidate_rows, new_exemplars
from bayesdual.memory.levels import bytes_of_vectors, decode_vectors, encode_vectors
from bayesdual.memory.low_rank_spread import LowRankSpread
from bayesdual.memory.map import MemoryMap, map_memory
from bayesdual.memory.memory import Memory
from bayesdual.memory.packing import pack, size_of, unpack
from bayesdual.memory.plan import Counts, Plan
from bayesdual.memory.selection import (
    Candidates,
    Selection,
    choose,
    coverage,
    dual_coverage,
    herding,
    random_selection,
    score_sampling,
    top_score,
)
from bayesdual.memory.shares import by_class, class_weights, classes_or_one, fair_shares, quotas
from bayesdual.memory.soft_labels import mean_predictions, soft_labels
from bayesdual.memory.spread import Spread
from bayesdual.memory.stand_ins import stand_ins
from bayesdual.memory.vectors import (
    Condensation,
    Condensed,
    Condenser,
    Merging,
    can_be_averaged,
    cell_means,
    memory_vectors,
)

__all__ = [
    "Candidates",
    "Condensation",
    "Condensed",
    "Condenser",
    "CosineCodec",
    "CosineSpread",
    "Counts",
    "Exemplars",
    "FORMAT",
    "IMPOSSIBLE",
    "LowRankSpread",
    "Memory",
    "MemoryMap",
    "Merging",
    "Plan",
    "Selection",
    "Spread",
    "bytes_of_vectors",
    "by_class",
    "can_be_averaged",
    "candidate_rows",
    "cell_means",
    "choose",
    "class_weights",
    "classes_or_one",
    "concatenate",
    "coverage",
    "decode_vectors",
    "dual_coverage",
    "encode_vectors",
    "fair_shares",
    "herding",
    "map_memory",
    "mean_predictions",
    "memory_vectors",
    "new_exemplars",
    "pack",
    "quotas",
    "random_selection",
    "score_sampling",
    "size_of",
    "soft_labels",
    "stand_ins",
    "top_score",
    "unpack",
]
