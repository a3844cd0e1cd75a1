"""What is read of Hugging Face's folders on disk: nothing is downloaded, and nothing in them is executed."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

ON_DISK = {"local_files_only": True, "trust_remote_code": False}


def read_encoder(folder: str | Path) -> Any:
    """The encoder in a folder, as ``transformers.AutoModel`` reads it, in eval mode.

    Raises:
        ValueError: The folder holds no encoder with weights in safetensors.
    """
    path = _folder(folder, "config.json", "model.network.init_args.folder")
    if not any(path.glob("model*.safetensors")):
        raise ValueError(f"{path} has no model.safetensors: save the model there by save_pretrained (safetensors).")
    with _quiet():
        try:
            encoder = AutoModel.from_pretrained(path, use_safetensors=True, **ON_DISK)
        except Exception as error:  # whatever a damaged file makes of it
            raise ValueError(f"{path} holds no encoder that transformers can read ({_first_line(error)}).") from None
    if encoder.config.is_encoder_decoder:
        raise ValueError(f"{path} holds a {type(encoder).__name__}, an encoder with a decoder: give an encoder alone.")
    return encoder


def read_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in a folder, as ``transformers.AutoTokenizer`` reads it.

    Raises:
        ValueError: The folder holds no tokenizer, or one that does not pad.
    """
    path = _folder(folder, "tokenizer_config.json", "folder")
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, **ON_DISK)
        except Exception as error:  # whatever a damaged file makes of it
            raise ValueError(f"{path} holds no tokenizer that transformers can read ({_first_line(error)}).") from None
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"the tokenizer of {path} has no padding token: set its pad_token, and save it by save_pretrained."
        )
    return tokenizer


def _folder(folder: str | Path, wanted: str, key: str) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(
            f"{key} is {str(folder)!r}, which is no folder: give one that a model and its tokenizer were saved in by "
            "save_pretrained (nothing is downloaded)."
        )
    if not (path / wanted).is_file():
        raise ValueError(f"{path} has no {wanted}: save the model and its tokenizer there by save_pretrained.")
    return path


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and reports of weights that an encoder does not need."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
