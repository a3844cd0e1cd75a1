"""Texts: a Hugging Face encoder whose LoRA adapter is learned, by IVON with a posterior, from folders on disk alone."""

from bayesdual.extras import require

require("bayesdual.lora", "lora")

from bayesdual.lora.classifier import LoRAClassifier
from bayesdual.lora.folders import read_tokenizer
from bayesdual.lora.pruning import prune_uncertain
from bayesdual.lora.tokens import tokens

__all__ = ["LoRAClassifier", "prune_uncertain", "read_tokenizer", "tokens"]
