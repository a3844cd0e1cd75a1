"""A small GPT that learns English, then German, then French manual pages: the loss in each after each.

    python benchmarks/language_stream.py [--results benchmarks/results/language_stream.jsonl] [--table]

The texts are Debian's manual pages that are installed in all three languages (``apt install manpages manpages-de
manpages-fr`` has more of them), stripped of their marks. A text is 65 characters, of 127 that are told apart; an
experience is 2,000 texts of a language, learned once in batches of 16. The methods:

    naive               one language after the other
    CoVON's rule        the posterior of the past is the prior of the next language, inside the step; no texts are kept
    replay              AdamW; 100 random texts of the past (6.5 kB), 16 replayed in each step, each language as many
    replay, half        the same, but half of the loss is that of new texts, however many were seen
    ours                the same texts, learned from their next characters and from what the network before this
                        language said of them (the K-prior in function space, of tokens), in equal parts
    joint               all three at once: what no stream can beat

Otherwise new and past count by their numbers of texts. A network before is that of the experience before: it is there
when an experience begins, and is not carried. The rate of each method is the best of its grid on validation texts of
seed 3, by the mean loss over English and German after both. Test texts are of other pages than training texts. Losses
are in nats a character, at the mean. Every run is appended to the results file, and none is made twice by the same
code.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdual.comparison import Cell, Run, Store, made_by
from bayesdual.ivon import IVONByMatrix
from bayesdual.kprior import function_space_loss
from bayesdual.schedule import lower_learning_rate
from bayesdual.strategies.baselines.covon import CoVON

PAGES, LANGUAGES = Path("/usr/share/man"), {"English": "", "German": "de", "French": "fr"}
LENGTH, WIDTH, HEADS, BLOCKS, SIGNS = 64, 64, 4, 2, 128
TEXTS, TESTED, BATCH, KEPT, CANDIDATES = 2000, 300, 16, 100, 4
TUNING_SEED = 3


# ---- Texts -------------------------------------------------------------------------------------------------


def plain(page: str) -> str:
    """A manual page without its marks."""
    page = re.sub(r"^[.'](?!(?:B|I|BR|IR|IP) ).*$", "", page, flags=re.MULTILINE)
    page = re.sub(r"^\.(?:B|I|BR|IR|IP) ", "", page, flags=re.MULTILINE)
    return re.sub(r"\s+", " ", re.sub(r"\\f.|\\&|\\\(..|\\\[..\]|\\", "", page))


@cache
def pages() -> dict[str, list[str]]:
    """The manual pages that are there in all languages, in the same order."""
    found = {name: {p.relative_to(PAGES / folder): p for p in (PAGES / folder).glob("man*/*.gz")}
             for name, folder in LANGUAGES.items()}  # fmt: skip
    common = sorted(set.intersection(*({*paths} for paths in found.values())))
    texts = {name: [plain(gzip.decompress(paths[page].read_bytes()).decode(errors="replace")) for page in common]
             for name, paths in found.items()}  # fmt: skip
    if min(sum(map(len, some)) for some in texts.values()) < 3 * LENGTH * TEXTS:
        raise SystemExit(
            f"{PAGES} has too few manual pages in each of {', '.join(LANGUAGES)}: apt install manpages manpages-de "
            "manpages-fr."
        )
    return texts


@cache
def data(seed: int) -> dict[str, dict[str, Tensor]]:
    """Texts of each language as numbers of characters: to learn from, to tune on and to test with."""
    counts = Counter(sign for some in pages().values() for text in some for sign in text)
    number = {sign: i + 1 for i, (sign, _) in enumerate(counts.most_common(SIGNS - 1))}
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pages()["English"]), generator=generator).tolist()
    third = len(order) // 6
    parts = {"test": order[:third], "validation": order[third : 2 * third], "train": order[2 * third :]}
    return {
        name: {part: chunks([some[i] for i in chosen], number, TEXTS if part == "train" else TESTED, generator)
               for part, chosen in parts.items()}
        for name, some in pages().items()
    }  # fmt: skip


def chunks(some: list[str], number: dict[str, int], most: int, generator: torch.Generator) -> Tensor:
    ids = torch.tensor([number.get(sign, 0) for text in some for sign in text])
    rows = ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    return rows[torch.randperm(len(rows), generator=generator)[:most]]


# ---- The network -------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Attention to what came before, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.attend, self.attended = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, z: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in self.attend(self.norms[0](z)).chunk(3, 2))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        z = z + self.attended(seen.transpose(1, 2).flatten(2))
        return z + self.mlp(self.norms[1](z))


class GPT(nn.Module):
    """A decoder: texts, shape (B, L), to logits of the next character, shape (B, L, SIGNS)."""

    def __init__(self) -> None:
        super().__init__()
        self.signs, self.places = nn.Embedding(SIGNS, WIDTH), nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        nn.init.normal_(self.signs.weight, std=0.1)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, SIGNS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.signs(x) + self.places[: x.shape[1]])))


# ---- Learning ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """What is kept of the past, and what learns."""

    steps: str
    rates: tuple[float, ...]
    kept: int = 0
    soft: bool = False
    half: bool = False  # of the loss is new, however many texts there were
    joint: bool = False


ADAM, IVONS = (2e-3, 5e-3), (0.1, 0.3)  # learning rates, and IVONByMatrix's reach
METHODS = {
    "naive, AdamW": Method("AdamW", ADAM),
    "CoVON's rule": Method("CoVON", (3e-3, 1e-2, 3e-2)),
    "replay, AdamW": Method("AdamW", ADAM, KEPT),
    "replay, half": Method("AdamW", ADAM, KEPT, half=True),
    "ours, AdamW": Method("AdamW", ADAM, KEPT, soft=True),
    "ours": Method("IVON", IVONS, KEPT, soft=True),
    "joint, AdamW": Method("AdamW", ADAM, joint=True),
}


def make(method: Method, network: nn.Module, rate: float, texts: int, steps: int) -> torch.optim.Optimizer:
    if method.steps == "AdamW":
        return torch.optim.AdamW(network.parameters(), lr=rate)
    if method.steps == "CoVON":
        return CoVON(network.parameters(), lr=rate)
    return IVONByMatrix(rate).make(network.parameters(), texts, steps)


def token_losses(logits: Tensor, text: Tensor) -> Tensor:
    """The mean loss of the characters that come next."""
    return F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())


def loss_of(network: nn.Module, new: Tensor, past: Tensor | None, old: nn.Module | None, share: float) -> Tensor:
    """(N CE(new) + N' past) / (N + N'), where past is the loss of kept texts, and that of what the old network says."""
    if past is None:
        return token_losses(network(new[:, :-1]), new)
    logits = network(torch.cat([new, past])[:, :-1])
    kept = token_losses(logits[len(new) :], past)
    if old is not None:
        with torch.no_grad():
            said = old(past[:, :-1]).flatten(0, 1)
        now = logits[len(new) :].flatten(0, 1)
        kept = (kept + function_space_loss(now, said, torch.ones(len(said)))) / 2
    return share * token_losses(logits[: len(new)], new) + (1 - share) * kept


def learn(
    method: Method, network: nn.Module, optimizer: torch.optim.Optimizer, texts: Tensor, memory: Tensor, seen: int,
    generator: torch.Generator,
) -> None:  # fmt: skip
    """An experience, with a rate that falls to 0."""
    old = copy.deepcopy(network).requires_grad_(False) if method.soft and len(memory) else None
    batches = torch.randperm(len(texts), generator=generator).split(BATCH)
    share = 0.5 if method.half and len(memory) else len(texts) / (len(texts) + seen)
    if isinstance(optimizer, CoVON):
        optimizer.begin_experience(1000 * len(texts))
    for i, rows in enumerate(batches):
        lower_learning_rate(optimizer, 0.0, i / len(batches))
        past = memory[torch.randint(len(memory), (BATCH,), generator=generator)] if len(memory) else None

        def closure(rows: Tensor = rows, past: Tensor | None = past) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(network, texts[rows], past, old, share)
            loss.backward()
            return loss

        if isinstance(optimizer, CoVON):
            optimizer.sample()
            closure()
            optimizer.restore()
            optimizer.step()
        else:
            optimizer.step(closure)  # type: ignore[arg-type]
    if isinstance(optimizer, CoVON):
        optimizer.end_experience()


@torch.no_grad()
def mean_loss(network: nn.Module, texts: Tensor) -> float:
    return statistics.mean(float(token_losses(network(part[:, :-1]), part)) for part in texts.split(100))


def run(method: str, rate: float, seed: int, tuning: bool) -> dict[str, Any]:
    """Learns once: the loss in each language (columns) after each (rows)."""
    how, start = METHODS[method], time.perf_counter()
    texts, part = data(seed), "validation" if tuning else "test"
    names = [*LANGUAGES][: 2 if tuning else None]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    experiences = [texts[name]["train"] for name in names]
    if how.joint:
        experiences = [torch.cat(experiences)]
    network = GPT()
    optimizer = make(how, network, rate, len(experiences[0]), -(-len(experiences[0]) // BATCH))
    kept: list[Tensor] = []
    losses = []
    for e, new in enumerate(experiences):
        learn(how, network, optimizer, new, torch.cat([new[:0], *kept]), e * TEXTS, generator)
        losses.append([mean_loss(network, texts[name][part]) for name in names])
        most = how.kept // (e + 1)
        kept = [some[:most] for some in (*kept, new[torch.randperm(len(new), generator=generator)])]
    return {"losses": losses, "bytes": sum(map(len, kept)) * (LENGTH + 1), "seconds": time.perf_counter() - start}


# ---- Tables ------------------------------------------------------------------------------------------------


def cell(method: str, rate: float, seed: int, tuning: bool = False) -> Cell:
    title = f"{method}, rate {rate:g}, seed {seed}" + (", tuning" if tuning else "")
    arguments = {"method": method, "rate": rate, "seed": seed, "tuning": tuning}
    return Cell(title, {"learn": "language_stream.run", "arguments": arguments})


def chosen(find: Any, methods: Iterable[str], seeds: Iterable[int]) -> Iterator[tuple[str, float, list[Run]]]:
    """Each method, the rate that validation texts ask for, and its runs."""
    for method in methods:
        tuned = {r: found for r in METHODS[method].rates if (found := find(cell(method, r, TUNING_SEED, True)))}
        if len(tuned) == len(METHODS[method].rates):
            rate = min(tuned, key=lambda r: statistics.mean(tuned[r].results["losses"][-1]))
            runs = [found for seed in seeds if (found := find(cell(method, rate, seed)))]
            if runs:
                yield method, rate, runs


def table(rows: Iterable[tuple[str, float, list[Run]]]) -> None:
    """After the last language: the loss in each, their mean by seed, and how much was forgotten of the first two."""
    print(
        f"{'':16s} {'rate':>6s} " + " ".join(f"{name:>8s}" for name in LANGUAGES) + "     mean  forgotten  bytes  seeds"
    )
    made = []
    for method, rate, runs in rows:
        made += runs
        last = torch.tensor([run.results["losses"][-1] for run in runs]).double()
        gone = [
            statistics.mean(r["losses"][-1][e] - r["losses"][e][e] for e in range(len(r["losses"]) - 1))
            for r in (run.results for run in runs)
            if len(r["losses"]) > 1
        ]
        each = " ".join(f"{value:8.3f}" for value in last.mean(0).tolist())
        forgotten = f"{statistics.mean(gone):10.3f}" if gone else " " * 10
        seeds = ", ".join(f"{value:.3f}" for value in last.mean(1).tolist())
        told = f"{float(last.mean()):8.3f} {forgotten} {runs[0].results['bytes']:6d}  {seeds}"
        print(f"{method:16s} {rate:6g} {each} {told}", flush=True)
    print(f"made by {made_by(made)}")


def found_or_made(store: Store, cell: Cell) -> Run:
    new = cell not in store
    run = store.make(cell)
    if new:
        print(f"{run.title}: {run.results}", flush=True)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/language_stream.jsonl"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS], help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(args.results)
    if args.table:
        latest = store.latest()
        table(chosen(lambda cell: latest.get(cell.title), args.methods, args.seeds))
    else:
        table(list(chosen(partial(found_or_made, store), args.methods, args.seeds)))


if __name__ == "__main__":
    main()
