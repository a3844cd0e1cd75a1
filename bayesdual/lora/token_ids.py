"""Texts as rows of token ids, in the smallest type of integers that a vocabulary fits into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def tokens(tokenizer: Any, texts: Sequence[str], length: int, name: str = "the data") -> tuple[Tensor, int]:
    """Token ids of texts, padded at the end, and cut, to one length.

    Args:
        tokenizer: As :func:`read_tokenizer` gives it.
        texts: N texts.
        length: L, in tokens, those that the tokenizer adds included.
        name: What to call the texts in an error.

    Returns:
        Shape (N, L), int16, int32 or int64 (never uint8, in which images come), and how many texts were cut.

    Raises:
        ValueError: ``length`` is more than the model takes, or leaves no room for a text.
    """
    added, most = tokenizer.num_special_tokens_to_add(), tokenizer.model_max_length
    if not added < length <= most:
        raise ValueError(
            f"length is {length}, but the tokenizer adds {added} tokens to a text and its model takes {most}: give a "
            "number between."
        )
    if not texts:
        raise ValueError(f"{name} has no texts.")
    whole = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    ids = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, padding_side="right")
    return torch.tensor(ids["input_ids"], dtype=type_for(len(tokenizer))), sum(len(row) > length for row in whole)


def type_for(vocabulary: int) -> torch.dtype:
    """The smallest type, from int16 on, that holds the ids 0 to ``vocabulary`` - 1."""
    return next(t for t in (torch.int16, torch.int32, torch.int64) if vocabulary - 1 <= torch.iinfo(t).max)
