"""Damage: to bytes, to text, and to values whose file is whole otherwise, as somebody who means it would write it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

ODD_TEXT = (
    "",
    "null",
    "~",
    "-1",
    "0",
    "1e400",
    "nan",
    ".inf",
    "true",
    "[]",
    "{}",
    "[[1], 2]",
    "{a: b}",
    "!!python/none x",
    "*a",
    "${x}",
    "9" * 40,
    "\x00",
    "é" * 50,
    "a: b: c",
    "- x",
    "../../etc/passwd",
    "'",
    '"',
    "?",
    "|",
    "None",
    "bayesdual.nothing",
    "\t",
)
ODD_VALUES: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: -1,
    lambda: 0,
    lambda: 10**30,
    lambda: float("nan"),
    lambda: "text",
    list,
    dict,
    lambda: [1, "a", None],
    lambda: {"a": 1},
    lambda: True,
    lambda: torch.zeros(0),
    lambda: torch.tensor(3),
    lambda: torch.full((3, 2), torch.nan),
    lambda: torch.ones(2, dtype=torch.bool),
    lambda: torch.ones(7, dtype=torch.int64) * -5,
    lambda: (1, 2),
    lambda: b"bytes",
)


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """Bits turned, parts cut out, overwritten, doubled or moved."""
    held = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at = draw.randrange(len(held) + 1)
        at = draw.choice((at, at, min(at, 600), max(0, len(held) - 1 - at % 600)))  # headers and tables lie at the ends
        n = draw.choice((1, 2, 8, 64, 1000))
        kind = draw.randrange(7)
        if kind == 0:
            del held[at:]
        elif kind == 1:
            del held[at : at + n]
        elif kind == 2:
            held[at : at + n] = bytes(len(held[at : at + n]))
        elif kind == 3:
            held[at:at] = held[at : at + n]
        elif kind == 4:
            held[at : at + n] = draw.randbytes(n)
        elif kind == 5:
            held[at : at + n] = b"\xff" * n
        elif at < len(held):
            held[at] ^= 1 << draw.randrange(8)
    return bytes(held)


def damaged_text(text: str, draw: random.Random) -> str:
    """Lines lost, doubled, moved or indented otherwise, and words replaced by odd ones."""
    lines = text.split("\n")
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(lines))
        kind = draw.randrange(7)
        if kind == 0 and len(lines) > 1:
            del lines[at]
        elif kind == 1:
            lines.insert(draw.randrange(len(lines)), lines[at])
        elif kind == 2:
            lines[at] = " " * draw.randrange(5) + lines[at].lstrip()
        elif kind == 3:
            key, colon, _ = lines[at].partition(":")
            lines[at] = f"{key}{colon} {draw.choice(ODD_TEXT)}"
        elif kind == 4 and lines[at]:
            place = draw.randrange(len(lines[at]))
            lines[at] = lines[at][:place] + draw.choice(ODD_TEXT) + lines[at][place + 1 :]
        elif kind == 5:
            words = lines[at].replace(",", " , ").split(" ")
            words[draw.randrange(len(words))] = draw.choice(ODD_TEXT)
            lines[at] = " ".join(words)
        else:
            lines[at] = draw.choice(ODD_TEXT)
    return "\n".join(lines)


def damaged_value(value: Any, draw: random.Random) -> Any:
    """Nested values with one of them, or one key, gone or another; the original stays."""
    inner = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list | tuple) else []
    if not inner or draw.random() < 0.05:
        return _other(value, draw)
    key = draw.choice(inner)
    parts = dict(value) if isinstance(value, dict) else list(value)
    kind = draw.random()
    if kind < 0.12:
        del parts[key]
    elif kind < 0.18 and isinstance(parts, dict):
        parts[draw.choice(("x", 7, "\x00", f"{key}s"))] = parts.pop(key)
    else:
        parts[key] = damaged_value(parts[key], draw)
    return tuple(parts) if isinstance(value, tuple) else parts


def _other(value: Any, draw: random.Random) -> Any:
    if isinstance(value, torch.Tensor) and draw.random() < 0.7:
        changes = (
            lambda t: t.flatten(),
            lambda t: t.double(),
            lambda t: t.to(torch.int64),
            lambda t: t[:0] if t.dim() else t,
            lambda t: t[None],
            lambda t: t.repeat(2, *[1] * (t.dim() - 1)) if t.dim() else t,
            lambda t: -t.float() * 1e30,
            lambda t: torch.full_like(t.float(), torch.nan),
            lambda t: t.to(torch.bfloat16),
            lambda t: t.T if t.dim() == 2 else t,
        )
        return draw.choice(changes)(value).contiguous()
    return draw.choice(ODD_VALUES)()
