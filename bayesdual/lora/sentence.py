"""Sentences as vectors, by a frozen encoder: the features that a linear head of texts is learned on."""

# pyright: reportMissingImports=false
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.lora.folders import read_encoder, read_tokenizer


class SentenceFeatures(nn.Module):
    """The mean of what a Hugging Face encoder gives at the tokens of a text, of length sqrt(D), where D numbers it has.

    Sentence-BERT (Reimers & Gurevych, EMNLP 2019) means tokens so; models such as all-MiniLM-L6-v2 were trained for it.

    Args:
        folder: Where a model and its tokenizer were saved by ``save_pretrained``; nothing is downloaded.

    Raises:
        ValueError: The folder lacks a model or a tokenizer.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.padding: int = read_tokenizer(folder).pad_token_id
        self.encoder = read_encoder(folder)

    def forward(self, x: Tensor) -> Tensor:
        """Token ids (B, L) to features (B, D)."""
        kept = x != self.padding
        last = self.encoder(input_ids=x.long(), attention_mask=kept.long()).last_hidden_state
        mean = (last * kept[..., None]).sum(1) / kept.sum(1, keepdim=True).clamp_min(1)
        return F.normalize(mean, dim=1) * mean.shape[1] ** 0.5
