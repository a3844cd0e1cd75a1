"""Texts of four intents, in files of the formats of CLINC150 and BANKING77, and a tiny BERT that reads them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

INTENTS = ("balance", "greeting", "timer", "weather")
WORDS = ["account", "hello", "minutes", "rain", "my", "please", "the", "what", "is", "now", "today", "you"]


def rows(n, start=0):
    """``n`` texts of each intent: the intent's word among others."""
    others = WORDS[4:]
    return [
        [f"{others[(i + j) % 8]} {WORDS[j]} {others[(3 * i + 5) % 8]}", intent]
        for i in range(start, start + n)
        for j, intent in enumerate(INTENTS)
    ]


def save_encoder(folder, seed=0):
    """A tiny BERT and its tokenizer, as transformers saves them; returns the folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=12).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return str(folder)


def save_data(folder):
    """Both datasets; returns the folder."""
    content = {"train": rows(12), "val": rows(2, 12), "test": rows(4, 14), "oos_test": [["you today", "oos"]]}
    (Path(folder) / "clinc150.json").write_text(json.dumps(content))
    for part, some in (("train", rows(6)), ("test", rows(2, 6))):
        with open(Path(folder) / f"banking77_{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["text", "category"], *some])
    return str(folder)
