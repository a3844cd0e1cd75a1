"""The Lightning host: one ``Trainer.fit`` learns a whole stream."""

from bayesdual.extras import require

require("bayesdual.learner", "lightning")

from bayesdual.learner.checkpoint import StreamCheckpoint
from bayesdual.learner.datamodule import EVALUATION_BATCH, StreamDataModule
from bayesdual.learner.history import History
from bayesdual.learner.learner import Learner
from bayesdual.learner.merging import MergeExperts
from bayesdual.random_state import random_state, set_random_state

__all__ = [
    "EVALUATION_BATCH",
    "History",
    "Learner",
    "MergeExperts",
    "StreamCheckpoint",
    "StreamDataModule",
    "random_state",
    "set_random_state",
]
