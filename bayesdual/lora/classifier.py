"""A network for texts: a frozen encoder, a low-rank adapter of it that is learned, and a linear head.

A frozen weight W of the encoder is used as

    W + (alpha / r) B A,    A (r, in), B (out, r),    B = 0 at first

(LoRA: Hu et al., ICLR 2022), and with h_l what the encoder gives at the L tokens of a text that are no padding,

    logits = V (1/L sum_l h_l) + v

IVON learns a posterior of A, B, V and v alone (IVON-LoRA: Cong et al., 2024). The encoder's own weights are kept as
buffers that are not saved: they are no parameters to optimizers, priors, posteriors, processes and checkpoints, all of
which are so as small as the adapter. Its dropout is off: IVON's noise is in its place.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bayesdual.files import write_whole
from bayesdual.lora.folders import read_encoder, read_tokenizer
from bayesdual.tensor_files import checksum, read_tensors, write_tensors

ADAPTER, CONFIG, HEAD = "adapter_model.safetensors", "adapter_config.json", "head.safetensors"
FORMAT = "bayesdual-head-1"


class LoRAClassifier(nn.Module):
    """A Hugging Face encoder with a LoRA adapter and a linear head; only these two are learned.

    Args:
        folder: Where a model and its tokenizer were saved by ``save_pretrained``; nothing is downloaded.
        n_classes: Number of logits.
        r: Rank of the adapter.
        lora_alpha: alpha.
        target_modules: Names, or ends of names, of the linear layers that are adapted; None: those that PEFT knows for
            this kind of model (query and value of a BERT).

    Attributes:
        encoder: PEFT's model.
        head: The linear layer; a module whose head grows may take its place before anything is learned.
        padding: The token that counts as none.

    Raises:
        ValueError: The folder lacks a model or a tokenizer, or the model has no such layers.
    """

    def __init__(
        self,
        folder: str,
        n_classes: int = 10,
        r: int = 8,
        lora_alpha: float = 16.0,
        target_modules: list[str] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_classes", n_classes), ("r", r), ("lora_alpha", lora_alpha)):
            if value <= 0:
                raise ValueError(f"{name} is {value}: give a positive number.")
        base = read_encoder(folder)
        self.padding: int = read_tokenizer(folder).pad_token_id
        self._folder, self._checksum = str(folder), checksum(base.state_dict(), {})
        self._vocabulary: int = base.config.vocab_size
        self._longest: int | None = getattr(base.config, "max_position_embeddings", None)
        if hasattr(base, "pooler"):
            base.pooler = None  # the mean over tokens is in its place
        for module in base.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.encoder = _adapted(base, folder, r, lora_alpha, target_modules)
        _hold(self.encoder)
        self.head: nn.Module = nn.Linear(base.config.hidden_size, n_classes)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Logits, shape (N, C).

        Args:
            token_ids: Shape (N, L), whole numbers.

        Raises:
            ValueError: They are no token ids of this model, or more than it takes.
        """
        self._check(token_ids)
        known = token_ids != self.padding
        hidden = self.encoder(input_ids=token_ids.long(), attention_mask=known.long()).last_hidden_state
        counted = known.unsqueeze(-1).to(hidden)
        return self.head((hidden * counted).sum(1) / counted.sum(1).clamp_min(1))

    def _check(self, token_ids: Tensor) -> None:
        if token_ids.dim() != 2 or token_ids.is_floating_point():
            raise ValueError(
                f"a LoRAClassifier takes token ids, whole numbers of shape (N, L), not {token_ids.dtype} of shape "
                f"{tuple(token_ids.shape)}: give a benchmark of texts."
            )
        if self._longest is not None and token_ids.shape[1] > self._longest:
            raise ValueError(
                f"texts are {token_ids.shape[1]} tokens long, but the model of {self._folder} takes {self._longest}: "
                "give the benchmark a smaller length."
            )
        if token_ids.numel() and not 0 <= int(token_ids.min()) <= int(token_ids.max()) < self._vocabulary:
            raise ValueError(
                f"there is a token id {int(token_ids.max())}, but the model of {self._folder} knows {self._vocabulary} "
                "tokens: make the texts' ids by its own tokenizer."
            )

    # -- files

    def get_extra_state(self) -> Tensor:
        """The checksum of the encoder, so that checkpoints fit no other."""
        return torch.frombuffer(bytearray.fromhex(self._checksum), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compares.

        Raises:
            ValueError: The state is of a network with another encoder.
        """
        if bytes(state.tolist()).hex() != self._checksum:
            raise ValueError(
                f"the checkpoint's adapter is of another encoder than that in {self._folder}: give the folder that it "
                "was trained with."
            )

    def save_files(self, directory: str | Path) -> None:
        """Writes ``adapter/``: PEFT's two files, which PEFT reads alone, and the head.

        Args:
            directory: Where to.
        """
        folder = Path(directory) / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="adapter-") as scratch:
            self.encoder.save_pretrained(scratch, save_embedding_layers=False)
            for name in (ADAPTER, CONFIG):
                write_whole(folder / name, partial(shutil.copyfile, Path(scratch) / name))
        write_tensors(folder / HEAD, self.head.state_dict(), {"format": FORMAT, "encoder": self._checksum})

    @classmethod
    def load(cls, folder: str, adapter: str | Path) -> LoRAClassifier:
        """The network that was saved.

        Args:
            folder: That of the encoder.
            adapter: The folder ``adapter/`` that :meth:`save_files` wrote; nothing in it is executed.

        Raises:
            ValueError: Files are missing or damaged, or the adapter is of another encoder.
        """
        path = Path(adapter)
        if missing := [name for name in (ADAPTER, CONFIG, HEAD) if not (path / name).is_file()]:
            raise ValueError(f"{path} has no {missing[0]}: give the adapter/ of a run directory.")
        head, header = read_tensors(path / HEAD, "head")
        try:
            config = json.loads((path / CONFIG).read_text())
            r, alpha, layers = config["r"], config["lora_alpha"], config["target_modules"]
            weights = load_file(path / ADAPTER)
            n_classes = len(head["weight"])
        except (ValueError, KeyError, SafetensorError) as error:
            raise ValueError(f"{path} is damaged ({error}): take a copy of it.") from None
        network = cls(folder, n_classes, r, alpha, layers)
        if header.get("encoder") != network._checksum:
            raise ValueError(
                f"{path} is an adapter of another encoder than that in {folder}: give the folder that it was trained "
                "with."
            )
        set_peft_model_state_dict(network.encoder, weights)
        network.head.load_state_dict(head)
        return network


def _adapted(base: Any, folder: str, r: int, lora_alpha: float, target_modules: Sequence[str] | None) -> Any:
    layers = None if target_modules is None else list(target_modules)
    try:
        return get_peft_model(base, LoraConfig(r=r, lora_alpha=cast(Any, lora_alpha), target_modules=layers))
    except ValueError as error:
        linear = sorted({n.rpartition(".")[2] for n, m in base.named_modules() if isinstance(m, nn.Linear)})
        raise ValueError(
            f"target_modules is {layers}, but the model of {folder} has no such linear layers: choose of "
            f"{', '.join(linear)}."
        ) from error


def _hold(module: nn.Module) -> None:
    """Makes buffers of the parameters that are not learned, which no state dict has."""
    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            if not p.requires_grad:
                delattr(part, name)
                part.register_buffer(name, p.detach(), persistent=False)
