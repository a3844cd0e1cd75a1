"""Texts: a Hugging Face encoder whose LoRA adapter is learned, by IVON with a posterior, from folders on disk alone.

The names are imported when first asked for: transformers and PEFT, the extra ``lora``, take seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.lazy import attach

__all__ = ["IVONForLoRA", "LoRAClassifier", "SentenceFeatures", "prune_uncertain", "read_tokenizer", "tokens"]

if TYPE_CHECKING:
    from bayesdual.lora.classifier import LoRAClassifier
    from bayesdual.lora.folders import read_tokenizer
    from bayesdual.lora.pruning import prune_uncertain
    from bayesdual.lora.rule import IVONForLoRA
    from bayesdual.lora.sentence import SentenceFeatures
    from bayesdual.lora.token_ids import tokens
else:
    _HOMES = {
        "IVONForLoRA": "rule",
        "LoRAClassifier": "classifier",
        "SentenceFeatures": "sentence",
        "prune_uncertain": "pruning",
        "read_tokenizer": "folders",
        "tokens": "token_ids",
    }
    __getattr__, __dir__ = attach(__name__, _HOMES, dict.fromkeys(("classifier", "folders", "sentence"), "lora"))
